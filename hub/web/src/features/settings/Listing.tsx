import { Skeleton } from "@mantine/core";
import type { UseQueryResult } from "@tanstack/react-query";
import { ListX } from "lucide-react";
import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { ApiError } from "../../api/http";
import { EmptyState } from "../../ui/EmptyState";
import css from "./Settings.module.css";

interface ListingProps<T> {
  query: UseQueryResult<T[]>;
  empty: string;
  emptyHint?: string;
  children: (item: T) => ReactNode;
}

/** A list that is being read, could not be read, is empty, or is there. */
export function Listing<T>({ query, empty, emptyHint, children }: ListingProps<T>) {
  const { t } = useTranslation();
  if (query.data) {
    if (query.data.length === 0) return <EmptyState icon={<ListX size={24} />} title={empty} hint={emptyHint} />;
    return <ul className={css.list}>{query.data.map(children)}</ul>;
  }
  if (query.error) {
    const denied = query.error instanceof ApiError && query.error.status === 403;
    return (
      <EmptyState
        icon={<ListX size={24} />}
        title={denied ? t("settings.denied") : t("settings.failed", { reason: query.error.message })}
      />
    );
  }
  return (
    <div className={css.list} aria-hidden>
      {[1, 2, 3].map((one) => (
        <div key={one} className={css.entry}>
          <Skeleton height={36} width={36} radius={12} />
          <Skeleton height={12} width="45%" />
        </div>
      ))}
    </div>
  );
}
