/** Pictures and films of a thread, one at a time, over everything. */
import { ActionIcon, Loader, Modal } from "@mantine/core";
import { ChevronLeft, ChevronRight, Download, ImageOff, RotateCw, X } from "lucide-react";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { blobs, saveBlob } from "../../api/blobs";
import { localeOf } from "../../i18n";
import "../../i18n/inbox";
import { fullTime } from "../../lib/time";
import css from "./Lightbox.module.css";
import { useBlob } from "./Media";
import type { Shot } from "./shots";

export interface LightboxProps {
  shots: readonly Shot[];
  /** Which is shown; one that is not among them closes it. */
  fileId: string;
  nameOf: (shot: Shot) => string;
  onShow: (fileId: string) => void;
  onClose: () => void;
}

export default function Lightbox({ shots, fileId, nameOf, onShow, onClose }: LightboxProps) {
  const { t, i18n } = useTranslation("inbox");
  const index = shots.findIndex((one) => one.fileId === fileId);
  const shot = shots[index];
  const step = (by: number) => {
    const next = shots[index + by];
    if (next) onShow(next.fileId);
  };
  const onKeyDown = (event: React.KeyboardEvent) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    // A film's own keys wind it.
    if (event.target instanceof HTMLVideoElement) return;
    event.preventDefault();
    const forward = (event.key === "ArrowRight") === (document.documentElement.dir !== "rtl");
    step(forward ? 1 : -1);
  };
  if (!shot) return null;
  const what = shot.kind === "video" ? t("media.film") : t("media.picture");
  return (
    <Modal.Root opened onClose={onClose} fullScreen transitionProps={{ duration: 0 }} onKeyDown={onKeyDown}>
      <Modal.Content className={css.content} aria-label={t("lightbox.label", { what, name: nameOf(shot) })} data-testid="lightbox">
        <header className={css.head}>
          <div className={css.who}>
            <bdi className={css.name}>{nameOf(shot)}</bdi>
            <span className={css.when}>
              <time dateTime={shot.at}>{fullTime(shot.at, localeOf(i18n.language))}</time>
              {shots.length > 1 && <span>{t("lightbox.place", { at: index + 1, of: shots.length })}</span>}
            </span>
          </div>
          <Save shot={shot} />
          <ActionIcon className={css.tool} size={40} aria-label={t("lightbox.close")} onClick={onClose} data-autofocus>
            <X size={20} />
          </ActionIcon>
        </header>
        <div className={css.stage}>
          <Stage key={shot.fileId} shot={shot} />
          {shots.length > 1 && (
            <>
              <ActionIcon
                className={css.previous}
                size={44}
                aria-label={t("lightbox.previous")}
                disabled={index === 0}
                onClick={() => step(-1)}
              >
                <ChevronLeft size={26} className="mirrored" />
              </ActionIcon>
              <ActionIcon
                className={css.next}
                size={44}
                aria-label={t("lightbox.next")}
                disabled={index === shots.length - 1}
                onClick={() => step(1)}
              >
                <ChevronRight size={26} className="mirrored" />
              </ActionIcon>
            </>
          )}
        </div>
        {shot.caption !== "" && (
          <p className={css.caption} dir="auto">
            {shot.caption}
          </p>
        )}
      </Modal.Content>
    </Modal.Root>
  );
}

function Save({ shot }: { shot: Shot }) {
  const { t } = useTranslation("inbox");
  const look = useBlob(shot.fileId, true);
  return (
    <ActionIcon
      className={css.tool}
      size={40}
      aria-label={t("media.save", { name: shot.name })}
      title={t("media.save", { name: shot.name })}
      disabled={look.state !== "ready"}
      onClick={() => look.state === "ready" && saveBlob(look.blob, shot.name)}
    >
      <Download size={19} />
    </ActionIcon>
  );
}

function Stage({ shot }: { shot: Shot }) {
  const { t } = useTranslation("inbox");
  const look = useBlob(shot.fileId, true);
  const [broken, setBroken] = useState(false);
  const what = shot.kind === "video" ? t("media.film") : t("media.picture");
  if (look.state === "failed") {
    return (
      <button type="button" className={css.trouble} onClick={() => blobs.again(shot.fileId)}>
        <RotateCw size={22} aria-hidden /> {t("media.again")}
      </button>
    );
  }
  if (look.state !== "ready") return <Loader color="gray" aria-label={t("media.loading")} />;
  if (broken) {
    return (
      <p className={css.trouble}>
        <ImageOff size={22} aria-hidden /> {shot.kind === "video" ? t("media.unplayable") : t("media.unshowable")}
      </p>
    );
  }
  return shot.kind === "video" ? (
    // oxlint-disable-next-line jsx-a11y/media-has-caption
    <video className={css.shown} src={look.url} controls autoPlay playsInline aria-label={what} onError={() => setBroken(true)} />
  ) : (
    <img className={css.shown} src={look.url} alt={shot.caption || what} onError={() => setBroken(true)} />
  );
}
