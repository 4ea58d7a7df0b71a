/** The unread count where it is seen from other tabs: the title and the favicon. */
import { useEffect } from "react";

/** Draws the app's icon with a dot; resolves with an address of this page (blob:). */
async function dotted(source: string): Promise<string | null> {
  const image = new Image();
  image.src = source;
  try {
    await image.decode();
  } catch {
    return null;
  }
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 64;
  const pen = canvas.getContext("2d");
  if (!pen) return null;
  pen.drawImage(image, 0, 0, 64, 64);
  pen.beginPath();
  pen.arc(48, 16, 15, 0, 2 * Math.PI);
  pen.fillStyle = "#c8361f";
  pen.fill();
  pen.lineWidth = 4;
  pen.strokeStyle = "#ffffff";
  pen.stroke();
  const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
  return blob && URL.createObjectURL(blob);
}

export function useUnreadBadge(unread: number, title: string): void {
  useEffect(() => {
    document.title = unread > 0 ? `(${unread}) ${title}` : title;
  }, [unread, title]);

  const some = unread > 0;
  useEffect(() => {
    const link = document.querySelector<HTMLLinkElement>('link[rel="icon"]');
    if (!link || !some) return undefined;
    const plain = link.href;
    let address: string | null = null;
    let over = false;
    void dotted(plain).then((found) => {
      if (!found) return;
      if (over) URL.revokeObjectURL(found);
      else {
        address = found;
        link.href = found;
      }
    });
    return () => {
      over = true;
      link.href = plain;
      if (address) URL.revokeObjectURL(address);
    };
  }, [some]);
}
