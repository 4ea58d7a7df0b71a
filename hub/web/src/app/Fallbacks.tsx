import { Button } from "@mantine/core";
import { type ErrorComponentProps, Link } from "@tanstack/react-router";
import { Compass, TriangleAlert } from "lucide-react";
import { useTranslation } from "react-i18next";
import { EmptyState } from "../ui/EmptyState";
import css from "./Shell.module.css";

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
