import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import "../../i18n/failures";
import { useLive } from "../../realtime/live";
import { Counter } from "../../ui/Chip";
import { MOST_SHOWN, failuresQuery, seesFailures } from "./kept";

/** How many deliveries could not be applied; nothing when there are none, or none for these eyes. */
export function FailuresBadge() {
  const { t } = useTranslation("failures");
  const sees = useLive(({ session }) => seesFailures(session));
  const { data = [] } = useQuery({ ...failuresQuery, enabled: sees });
  if (!sees || data.length === 0) return null;
  const label =
    data.length < MOST_SHOWN ? t("badge", { count: data.length }) : t("badgeMany", { most: MOST_SHOWN });
  return <Counter value={data.length} label={label} />;
}
