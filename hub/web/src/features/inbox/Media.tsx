/** Files in a bubble: pictures and films in a box whose size is known before they are, sounds with a player, anything
 * else as a chip to be saved. */
import { Loader, RingProgress } from "@mantine/core";
import {
  Download, FileArchive, FileSpreadsheet, FileText, FileX, ImageOff, Mic, Music2, Pause, Play, RotateCw, X,
} from "lucide-react";
import { type ReactNode, type RefObject, useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { blobs, saveBlob, useLook } from "../../api/blobs";
import { ApiError } from "../../api/http";
import { type Media, mediaOf, readMedia } from "../../api/media";
import type { Message } from "../../api/models";
import { complain } from "../../app/deeds";
import { localeOf } from "../../i18n";
import "../../i18n/inbox";
import { fileSize, playTime } from "../../lib/bytes";
import type { Attachment, Unsent } from "../../realtime/outbox";
import { addressOf, useUploads } from "../../realtime/uploads";
import { cx } from "../../ui/cx";
import css from "./Media.module.css";
import { nextRate, seekSound, toggleSound, usePlayer } from "./player";
import { lookOf, nameOfFile } from "./shots";

/** How far outside the thread's window a picture is read already. */
const NEAR = "400px 0px";

/** Whether the element is in sight of its thread, or nearly. */
function useNear(ref: RefObject<Element | null>): boolean {
  const [near, setNear] = useState(false);
  useEffect(() => {
    const element = ref.current;
    if (!element) return undefined;
    const eye = new IntersectionObserver(
      (entries) => setNear(entries.some((entry) => entry.isIntersecting)),
      { root: element.closest("[role=log]"), rootMargin: NEAR },
    );
    eye.observe(element);
    return () => eye.disconnect();
  }, [ref]);
  return near;
}

/** Wants the file's bytes while `wanted`. */
export function useBlob(fileId: string, wanted: boolean): ReturnType<typeof useLook> {
  useEffect(() => (wanted ? blobs.want(fileId) : undefined), [fileId, wanted]);
  return useLook(fileId);
}

/** Saves a file under its name; `part` tells how far it is. */
function useSaving(fileId: string, name: string): { part: number | null; save: () => void } {
  const [part, setPart] = useState<number | null>(null);
  const save = () => {
    if (part !== null) return;
    const look = blobs.look(fileId);
    if (look.state === "ready") {
      saveBlob(look.blob, name);
      return;
    }
    setPart(0);
    readMedia(fileId, new AbortController().signal, setPart)
      .then((blob) => saveBlob(blob, name))
      .catch((error: unknown) => {
        if (!(error instanceof ApiError)) throw error;
        complain(error);
      })
      .finally(() => setPart(null));
  };
  return { part, save };
}

function Ring({ part, label }: { part: number | null; label: string }) {
  return part === null ? (
    <Loader size={20} color="gray" aria-label={label} />
  ) : (
    <RingProgress size={30} thickness={3} sections={[{ value: Math.max(4, part * 100), color: "var(--pine)" }]} aria-label={label} />
  );
}

export interface BubbleMediaProps {
  message: Message;
  /** Opens the lightbox at this file. */
  onOpen: (fileId: string) => void;
}

/** Null where the message has no file that could be shown. */
export function BubbleMedia({ message, onOpen }: BubbleMediaProps) {
  return mediaOf(message).map((media) => (
    <OneMedia key={media.file_id} message={message} media={media} onOpen={onOpen} />
  ));
}

function OneMedia({ message, media, onOpen }: BubbleMediaProps & { media: Media }) {
  const { t, i18n } = useTranslation("inbox");
  const kind = lookOf(message, media);
  const fileId = media.file_id ?? "";
  if (media.state === "failed" || media.state === "expired") {
    const Icon = kind === "image" || kind === "sticker" ? ImageOff : FileX;
    return (
      <div className={css.lost} data-testid="media" data-state={media.state}>
        <Icon size={18} aria-hidden />
        <span>
          {media.state === "expired" ? t("media.expired") : t("media.failed")}
          {media.reason && (
            <bdi className={css.reason} dir="auto">
              {media.reason}
            </bdi>
          )}
        </span>
      </div>
    );
  }
  if (media.state === "pending") {
    return (
      <div
        className={cx(kind === "audio" ? css.sound : kind === "document" ? css.chip : css.box, kind === "sticker" && css.stickerBox)}
        data-testid="media"
        data-state="pending"
        data-kind={kind}
      >
        <Loader size={18} color="gray" aria-label={t("media.pending")} />
        <span className={css.soft}>{t("media.pending")}</span>
      </div>
    );
  }
  switch (kind) {
    case "image":
    case "sticker":
      return (
        <Picture
          fileId={fileId}
          sticker={kind === "sticker"}
          label={media.filename ?? message.content}
          onOpen={() => onOpen(fileId)}
        />
      );
    case "video":
      return (
        <button
          type="button"
          className={cx(css.box, css.film)}
          data-testid="media"
          data-state="stored"
          data-kind="video"
          onClick={() => onOpen(fileId)}
        >
          <span className="sr-only">{t("media.play", { name: nameOfFile(message, media, kind) })}</span>
          <span className={css.playBig} aria-hidden>
            <Play size={26} fill="currentColor" />
          </span>
          {media.bytes !== null && (
            <span className={css.badge}>{fileSize(media.bytes, localeOf(i18n.language))}</span>
          )}
        </button>
      );
    case "audio":
      return <Sound fileId={fileId} voice={media.voice} bytes={media.bytes} />;
    case "document":
      return <Chip fileId={fileId} media={media} name={nameOfFile(message, media, kind)} />;
    default:
      return kind satisfies never;
  }
}

interface PictureProps {
  fileId: string;
  sticker: boolean;
  label: string;
  onOpen: () => void;
}

function Picture({ fileId, sticker, label, onOpen }: PictureProps) {
  const { t } = useTranslation("inbox");
  const box = useRef<HTMLDivElement>(null);
  const near = useNear(box);
  const look = useBlob(fileId, near);
  const [broken, setBroken] = useState(false);
  const name = label.trim().slice(0, 120);
  const words = sticker ? t("media.sticker") : name === "" ? t("media.picture") : t("media.pictureOf", { name });
  return (
    <div
      ref={box}
      className={cx(css.box, sticker && css.stickerBox)}
      data-testid="media"
      data-state={broken ? "broken" : look.state === "ready" ? "shown" : look.state}
      data-kind={sticker ? "sticker" : "image"}
    >
      {look.state === "failed" || broken ? (
        <button
          type="button"
          className={css.again}
          onClick={() => {
            setBroken(false);
            if (look.state === "failed") blobs.again(fileId);
            else onOpen();
          }}
        >
          {broken ? <ImageOff size={20} aria-hidden /> : <RotateCw size={20} aria-hidden />}
          {broken ? t("media.unshowable") : t("media.again")}
        </button>
      ) : look.state !== "ready" ? (
        <span className={css.waiting} aria-hidden />
      ) : sticker ? (
        <img className={css.sticker} src={look.url} alt={words} decoding="async" onError={() => setBroken(true)} />
      ) : (
        <button type="button" className={css.open} aria-label={t("media.open", { what: words })} onClick={onOpen}>
          <img className={css.picture} src={look.url} alt="" decoding="async" onError={() => setBroken(true)} />
        </button>
      )}
    </div>
  );
}

function Sound({ fileId, voice, bytes }: { fileId: string; voice: boolean; bytes: number | null }) {
  const { t, i18n } = useTranslation("inbox");
  const mine = usePlayer((playing) => playing.fileId === fileId);
  const playing = usePlayer((now) => (now.fileId === fileId ? now.state : "stopped"));
  const at = usePlayer((now) => (now.fileId === fileId ? now.at : 0));
  const length = usePlayer((now) => (now.fileId === fileId ? now.length : null));
  const rate = usePlayer((now) => now.rate);
  const look = useLook(fileId);
  const what = voice ? t("media.voice") : t("media.audio");
  const failed = look.state === "failed" || playing === "broken";
  return (
    <div
      className={css.sound}
      data-testid="media"
      data-state={playing === "broken" ? "broken" : look.state === "ready" ? "shown" : look.state}
      data-kind="audio"
      role="group"
      aria-label={what}
    >
      <button
        type="button"
        className={css.playSmall}
        aria-label={playing === "playing" ? t("media.pause") : t("media.playSound")}
        onClick={() => (look.state === "failed" ? blobs.again(fileId) : toggleSound(fileId))}
      >
        {look.state === "loading" ? (
          <Loader size={16} color="currentColor" />
        ) : playing === "playing" ? (
          <Pause size={18} fill="currentColor" aria-hidden />
        ) : (
          <Play size={18} fill="currentColor" aria-hidden />
        )}
      </button>
      <span className={css.soundIcon} aria-hidden>
        {voice ? <Mic size={15} /> : <Music2 size={15} />}
      </span>
      <input
        type="range"
        className={css.track}
        min={0}
        max={length ?? 1}
        step={0.1}
        value={mine ? Math.min(at, length ?? 1) : 0}
        disabled={length === null}
        aria-label={t("media.position")}
        aria-valuetext={playTime(at)}
        onChange={(event) => seekSound(Number(event.currentTarget.value))}
      />
      {failed ? (
        <span className={css.bad} role="status">
          {playing === "broken" ? t("media.unplayable") : t("media.again")}
        </span>
      ) : mine && playing !== "stopped" && playing !== "wanted" ? (
        <>
          <span className={css.time} dir="ltr">
            {playTime(length === null ? at : length - at)}
          </span>
          <button type="button" className={css.rate} aria-label={t("media.speed", { rate })} onClick={nextRate}>
            {rate}×
          </button>
        </>
      ) : (
        <span className={css.time}>{bytes === null ? what : fileSize(bytes, localeOf(i18n.language))}</span>
      )}
    </div>
  );
}

function chipIcon(name: string, mime: string | null): typeof FileText {
  if (/\.(zip|rar|7z|tar|gz)$/i.test(name)) return FileArchive;
  return /\.(xlsx?|csv|ods)$/i.test(name) || mime === "text/csv" ? FileSpreadsheet : FileText;
}

function Chip({ fileId, media, name }: { fileId: string; media: Media; name: string }) {
  const { t, i18n } = useTranslation("inbox");
  const { part, save } = useSaving(fileId, name);
  const Icon = chipIcon(name, media.mime);
  return (
    <button
      type="button"
      className={css.chip}
      data-testid="media"
      data-state="stored"
      data-kind="document"
      title={t("media.save", { name })}
      onClick={save}
    >
      <Icon size={26} aria-hidden />
      <span className="sr-only">{t("media.download")}</span>
      <span className={css.chipText}>
        <bdi className={css.chipName}>{name}</bdi>
        <span className={css.soft}>
          {[
            /\.(\w{1,5})$/.exec(name)?.[1]?.toUpperCase(),
            media.bytes === null ? null : fileSize(media.bytes, localeOf(i18n.language)),
          ].filter(Boolean).join(" · ")}
        </span>
      </span>
      {part === null ? <Download size={18} aria-hidden /> : <Ring part={part} label={t("media.loading")} />}
    </button>
  );
}

/** The file of a message that is not sent yet, with how far it is. */
export function UnsentMedia({ unsent, file, onCancel }: { unsent: Unsent; file: Attachment; onCancel: () => void }) {
  const { t, i18n } = useTranslation("inbox");
  const upload = useUploads((all) => all.byKey.get(file.key));
  const address = upload ? addressOf(file.key) : null;
  const going = unsent.state === "queued" && file.mediaId === null;
  const part = upload?.state === "sending" ? upload.part : null;
  const progress: ReactNode = going && (
    <span className={css.progress}>
      <Ring part={part} label={t("upload.going", { name: file.name })} />
      <button type="button" className={css.cancel} aria-label={t("upload.cancel")} title={t("upload.cancel")} onClick={onCancel}>
        <X size={13} aria-hidden />
      </button>
    </span>
  );
  const state = going ? (upload?.state ?? "waiting") : "done";
  if (file.kind === "image") {
    return (
      <div className={css.box} data-testid="unsent-media" data-state={state}>
        {address === null ? <span className={css.waiting} aria-hidden /> : <img className={css.picture} src={address} alt={file.name} />}
        {progress}
      </div>
    );
  }
  const Icon = file.kind === "audio" ? Music2 : chipIcon(file.name, file.mime);
  return (
    <div className={cx(css.chip, css.still)} data-testid="unsent-media" data-state={state}>
      <Icon size={26} aria-hidden />
      <span className={css.chipText}>
        <bdi className={css.chipName}>{file.name}</bdi>
        <span className={css.soft}>{fileSize(file.bytes, localeOf(i18n.language))}</span>
      </span>
      {progress}
    </div>
  );
}
