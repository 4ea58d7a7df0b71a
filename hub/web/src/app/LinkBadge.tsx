import { UnstyledButton } from "@mantine/core";
import { CloudOff, RefreshCw, ShieldX, TriangleAlert } from "lucide-react";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { reconnectNow, useLive } from "../realtime/live";
import { unsentCount } from "../realtime/outbox";
import { cx } from "../ui/cx";
import css from "./LinkBadge.module.css";

function useSecondsUntil(at: number | null): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    if (at === null) return undefined;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, [at]);
  return at === null ? 0 : Math.max(1, Math.ceil((at - now) / 1000));
}

/** What the connection really is. With `quiet` it is shown only while something is wrong. */
export function LinkBadge({ quiet = false }: { quiet?: boolean }) {
  const { t } = useTranslation();
  const phase = useLive((live) => live.phase);
  const degraded = useLive((live) => live.degraded);
  const failure = useLive((live) => live.failure);
  const unsent = useLive((live) => unsentCount(live.outbox, live.phase.name === "live"));
  const seconds = useSecondsUntil(phase.name === "waiting" ? phase.retryAt : null);

  const badge = ((): { tone: string; text: string; hint?: string; icon?: React.ReactNode } => {
    switch (phase.name) {
      case "live":
        if (degraded.length > 0 || failure !== null) {
          const hint = degraded.includes("postgres")
            ? t("link.degradedPostgres")
            : degraded.includes("redis")
              ? t("link.degradedRedis")
              : t("link.degradedOther");
          return { tone: "warn", text: t("link.degraded"), hint, icon: <TriangleAlert size={13} aria-hidden /> };
        }
        return { tone: "live", text: t("link.live"), hint: t("link.liveHint") };
      case "connecting":
        return { tone: "wait", text: t("link.connecting"), icon: <RefreshCw size={13} aria-hidden /> };
      case "waiting":
        return {
          tone: "wait",
          text: t("link.waiting", { count: seconds }),
          hint: t("link.now"),
          icon: <RefreshCw size={13} aria-hidden />,
        };
      case "offline":
        return { tone: "off", text: t("link.offline"), icon: <CloudOff size={13} aria-hidden /> };
      case "refused":
        return {
          tone: "off", text: t("link.refused"), hint: t("link.refusedHint"), icon: <ShieldX size={13} aria-hidden />,
        };
      case "stopped":
        return { tone: "off", text: t("link.stopped") };
      default:
        return phase satisfies never;
    }
  })();

  if (quiet && badge.tone === "live" && unsent === 0) return null;
  const text = unsent > 0 ? `${badge.text} · ${t("link.unsent", { count: unsent })}` : badge.text;
  const tone = unsent > 0 && badge.tone === "live" ? "warn" : badge.tone;
  const body = (
    <>
      {badge.icon ?? <span className={css.dot} aria-hidden />}
      <span data-testid="link-text">{text}</span>
    </>
  );
  if (phase.name === "waiting") {
    return (
      <UnstyledButton className={cx(css.badge, css[tone])} title={t("link.now")} onClick={reconnectNow}>
        {body}
      </UnstyledButton>
    );
  }
  return (
    <span className={cx(css.badge, css[tone])} title={badge.hint} data-testid="link-badge">
      {body}
    </span>
  );
}

/** Says changes of the connection to screen readers, without the countdown. */
export function LinkAnnouncer() {
  const { t } = useTranslation();
  const name = useLive((live) => live.phase.name);
  const words =
    name === "live" ? t("link.live") : name === "offline" || name === "waiting" ? t("link.offline") : "";
  return (
    <span className="sr-only" role="status">
      {words}
    </span>
  );
}
