import { Button } from "@mantine/core";
import { type ErrorComponentProps, Link, useRouter } from "@tanstack/react-router";
import { CloudOff, Compass, TriangleAlert } from "lucide-react";
import { useEffect } from "react";
import { useTranslation } from "react-i18next";
import { EmptyState } from "../ui/EmptyState";
import css from "./Shell.module.css";

/** Whether anybody is signed in could not be asked: no reason to ask for a password. */
export class HubAway extends Error {
  override readonly name = "HubAway";
}

const RETRY_MS = 3_000;

export function NotFound() {
  const { t } = useTranslation();
  return (
    <main className={css.fallback}>
      <EmptyState
        icon={<Compass size={24} />}
        title={t("app.notFound")}
        action={
          <Button component={Link} to="/inbox" variant="default">
            {t("app.toInbox")}
          </Button>
        }
      />
    </main>
  );
}

export function PageError({ error }: ErrorComponentProps) {
  const { t } = useTranslation();
  const router = useRouter();
  const away = error instanceof HubAway;
  useEffect(() => {
    if (!away) return undefined;
    const timer = setTimeout(() => void router.invalidate(), RETRY_MS);
    return () => clearTimeout(timer);
  }, [away, router, error]);
  if (away) {
    return (
      <main className={css.fallback}>
        <EmptyState icon={<CloudOff size={24} />} title={t("app.hubAway")} />
      </main>
    );
  }
  return (
    <main className={css.fallback}>
      <EmptyState
        icon={<TriangleAlert size={24} />}
        title={t("app.loadFailed")}
        hint={error instanceof Error ? error.message : undefined}
        action={
          <Button variant="default" onClick={() => location.reload()}>
            {t("app.reload")}
          </Button>
        }
      />
    </main>
  );
}
