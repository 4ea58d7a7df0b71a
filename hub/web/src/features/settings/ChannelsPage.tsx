import { useQuery } from "@tanstack/react-query";
import type { TFunction } from "i18next";
import { useTranslation } from "react-i18next";
import { channelsQuery } from "../../api/lists";
import type { ChannelAccount } from "../../api/models";
import { localeOf } from "../../i18n";
import { fullTime } from "../../lib/time";
import { Chip } from "../../ui/Chip";
import { ChannelIcon } from "../../app/ChannelIcon";
import { channelLabel } from "../../i18n/labels";
import { Failures } from "./Failures";
import { Listing } from "./Listing";
import css from "./Settings.module.css";
import { SettingsPage } from "./SettingsFrame";

export { FailuresBadge } from "./FailuresBadge";

function State({ account, t }: { account: ChannelAccount; t: TFunction }) {
  if (!account.is_active) return <Chip>{t("channels.inactive")}</Chip>;
  switch (account.health) {
    case "ok":
      return <Chip tone="good">{t("channels.ok")}</Chip>;
    case "degraded":
      return <Chip tone="warn">{t("channels.degraded")}</Chip>;
    case "error":
      return <Chip tone="bad">{t("channels.trouble")}</Chip>;
    case "unknown":
      return <Chip>{t("channels.unknown")}</Chip>;
    default:
      return account.health satisfies never;
  }
}

export function ChannelsPage() {
  const { t, i18n } = useTranslation();
  const lang = localeOf(i18n.language);
  const channels = useQuery(channelsQuery);
  return (
    <SettingsPage title={t("settings.channels")} intro={t("channels.intro")}>
      <Listing query={channels} empty={t("channels.empty")} emptyHint={t("channels.emptyHint")}>
        {(one) => (
          <li key={one.id} className={css.entry}>
            <ChannelIcon type={one.type} />
            <div>
              <p className={css.entryName}>
                <bdi>{one.name ?? channelLabel(t, one.type)}</bdi>
              </p>
              <p className={css.entrySub}>
                {channelLabel(t, one.type)} · {t("channels.last")}:{" "}
                <bdi>{one.last_inbound_at ? fullTime(one.last_inbound_at, lang) : t("channels.never")}</bdi>
              </p>
            </div>
            <div className={css.entryEnd}>
              <State account={one} t={t} />
            </div>
            {one.last_error !== null && one.health !== "ok" && (
              <p className={css.trouble} dir="auto">
                {one.last_error}
              </p>
            )}
          </li>
        )}
      </Listing>
      <Failures />
    </SettingsPage>
  );
}
