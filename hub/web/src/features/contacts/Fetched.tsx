import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { ApiError } from "../../api/http";
import css from "./ContactPanel.module.css";

export interface FetchedProps<T> {
  query: { data: T[] | undefined; error: Error | null };
  none: string;
  children: (list: T[]) => ReactNode;
}

/** A list of the panel: its rows, or why there are none. */
export function Fetched<T>({ query, none, children }: FetchedProps<T>) {
  const { t } = useTranslation();
  if (query.data) return query.data.length > 0 ? children(query.data) : <p className={css.none}>{none}</p>;
  if (query.error) {
    const denied = query.error instanceof ApiError && query.error.status === 403;
    return (
      <p className={css.none}>
        {denied ? t("contact.noCrm") : t("settings.failed", { reason: query.error.message })}
      </p>
    );
  }
  return <p className={css.none}>{t("settings.loading")}</p>;
}
