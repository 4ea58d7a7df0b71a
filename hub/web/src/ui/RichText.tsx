import { segments } from "../lib/text";

/** Text as text, with links made clickable. Each link is isolated so that it does not turn the line around it. */
export function RichText({ text }: { text: string }) {
  return segments(text).map((part, index) =>
    part.kind === "link" ? (
      // A message never changes its parts' order, so their place identifies them.
      // oxlint-disable-next-line react/no-array-index-key
      <bdi key={index}>
        <a href={part.href} target="_blank" rel="noopener noreferrer nofollow">
          {part.text}
        </a>
      </bdi>
    ) : (
      part.text
    ),
  );
}
