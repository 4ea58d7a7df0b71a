/** Files that are attached and not sent yet. */
import { ActionIcon, Button, Progress } from "@mantine/core";
import { FileText, Film, Image as ImageIcon, Music2, RotateCw, X } from "lucide-react";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { safeType } from "../../api/media";
import { localeOf } from "../../i18n";
import "../../i18n/inbox";
import { fileSize } from "../../lib/bytes";
import { newId } from "../../lib/ids";
import type { Attachment } from "../../realtime/outbox";
import { FILE_LOST, addFile, addressOf, dropFile, ensureUpload, fileOf, uploadAgain, useUploads } from "../../realtime/uploads";
import { type Problem, canBeFitted, kindOf, problemOf, typeNames, typeOf } from "./attach";
import { fitPicture } from "./fit";
import css from "./Tray.module.css";

const icons = { image: ImageIcon, video: Film, audio: Music2, document: FileText, sticker: ImageIcon };

export interface TrayProps {
  files: readonly Attachment[];
  channelType: string | undefined;
  /** The new list: one was removed, or made to fit. */
  onChange: (files: Attachment[]) => void;
}

export default function Tray({ files, channelType, onChange }: TrayProps) {
  const { t } = useTranslation("inbox");
  return (
    <ul className={css.tray} aria-label={t("tray.label")} data-testid="tray">
      {files.map((file) => (
        <Card
          key={file.key}
          file={file}
          problem={problemOf(file, channelType)}
          onRemove={() => {
            dropFile(file.key);
            onChange(files.filter((one) => one.key !== file.key));
          }}
          onFitted={(fitted) => {
            dropFile(file.key);
            onChange(files.map((one) => (one.key === file.key ? fitted : one)));
          }}
        />
      ))}
    </ul>
  );
}

interface CardProps {
  file: Attachment;
  problem: Problem | null;
  onRemove: () => void;
  onFitted: (fitted: Attachment) => void;
}

function Card({ file, problem, onRemove, onFitted }: CardProps) {
  const { t, i18n } = useTranslation("inbox");
  const lang = localeOf(i18n.language);
  const upload = useUploads((all) => all.byKey.get(file.key));
  const [fitting, setFitting] = useState<"no" | "busy" | "failed">("no");
  const blocked = problem !== null;
  useEffect(() => {
    // A draft of an earlier visit goes on where it was.
    if (!blocked) void ensureUpload(file.key);
  }, [file.key, blocked]);

  const [broken, setBroken] = useState(false);
  const picture = !broken && file.kind === "image" && safeType(file.mime) !== "application/octet-stream" ? addressOf(file.key) : null;
  const Icon = icons[file.kind];
  const size = fileSize(file.bytes, lang);
  const fit = async () => {
    setFitting("busy");
    const given = await fileOf(file.key);
    const max = problem?.code === "tooBig" ? problem.max : 5_000_000;
    const made = given && (await fitPicture(given, max));
    if (!made) {
      setFitting("failed");
      return;
    }
    const key = newId();
    addFile(key, made);
    onFitted({
      key, kind: kindOf(typeOf(made.type)), name: made.name, mime: typeOf(made.type), bytes: made.size, mediaId: null,
    });
  };

  const wordsFor = (one: Problem): string => {
    switch (one.code) {
      case "empty":
        return t("tray.empty");
      case "tooBig":
        return t("tray.tooBig", { size, max: fileSize(one.max, lang) });
      case "type":
        return t("tray.type", { types: typeNames(one.types) });
      default:
        return one satisfies never;
    }
  };
  const troubleOf = (): string | null => {
    if (problem) return wordsFor(problem);
    if (upload?.state !== "failed") return null;
    return upload.code === FILE_LOST ? t("upload.lost") : t("upload.failed", { reason: upload.text || upload.code });
  };
  const trouble = troubleOf();

  return (
    <li className={css.card} data-testid="tray-file" data-state={trouble ? "trouble" : (upload?.state ?? "waiting")}>
      <span className={css.thumb}>
        {picture ? <img src={picture} alt="" onError={() => setBroken(true)} /> : <Icon size={22} aria-hidden />}
      </span>
      <span className={css.text}>
        <bdi className={css.name} title={file.name}>
          {file.name}
        </bdi>
        {trouble === null ? (
          <span className={css.sub}>
            {size}
            {upload?.state === "waiting" && ` · ${t("upload.waiting")}`}
            {upload?.state === "done" && ` · ${t("upload.done")}`}
          </span>
        ) : (
          <span className={css.trouble} role="alert">
            {trouble}
          </span>
        )}
        {problem && canBeFitted(file, problem) && fitting !== "failed" && (
          <Button
            size="compact-xs"
            variant="default"
            className={css.fit}
            loading={fitting === "busy"}
            onClick={() => void fit()}
          >
            {problem.code === "type" ? t("tray.toJpeg") : t("tray.shrink")}
          </Button>
        )}
        {fitting === "failed" && <span className={css.trouble}>{t("tray.cannotFit")}</span>}
        {upload?.state === "sending" && (
          <Progress value={upload.part * 100} size={4} className={css.bar} aria-label={t("upload.going", { name: file.name })} />
        )}
      </span>
      {upload?.state === "failed" && upload.code !== FILE_LOST && (
        <ActionIcon size={28} aria-label={t("upload.again", { name: file.name })} onClick={() => uploadAgain(file.key)}>
          <RotateCw size={15} />
        </ActionIcon>
      )}
      <ActionIcon size={28} aria-label={t("tray.remove", { name: file.name })} onClick={onRemove}>
        <X size={15} />
      </ActionIcon>
    </li>
  );
}
