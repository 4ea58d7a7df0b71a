import { useQuery } from "@tanstack/react-query";
import type { TFunction } from "i18next";
import { useTranslation } from "react-i18next";
import { channelsQuery } from "../../api/lists";
import type { ChannelAccount } from "../../api/models";
import { localeOf } from "../../i18n";
import { isRecord } from "../../lib/parse";
import { fullTime } from "../../lib/time";
import { Chip } from "../../ui/Chip";
import { ChannelIcon } from "../../app/ChannelIcon";
import { channelLabel } from "../../i18n/labels";
import { Listing } from "./Listing";
import css from "./Settings.module.css";
import { SettingsPage } from "./SettingsFrame";

/** The last error as text: a plain string, or an object with a message. */
function troubleOf(account: ChannelAccount): string | null {
  const error = account.last_error;
  if (typeof error === "string" && error !== "") return error;
  if (isRecord(error) && typeof error["message"] === "string") return error["message"];
  return null;
}

function State({ account, t }: { account: ChannelAccount; t: TFunction }) {
  if (!account.is_active) return <Chip>{t("channels.inactive")}</Chip>;
  const health = typeof account.health === "string" ? account.health.toLowerCase() : null;
  if (troubleOf(account) !== null || (health !== null && !["ok", "healthy", "unknown", "active"].includes(health))) {
    return <Chip tone="bad">{t("channels.trouble")}</Chip>;
  }
  if (account.last_inbound_at === null && health !== "ok") return <Chip>{t("channels.unknown")}</Chip>;
  return <Chip tone="good">{t("channels.ok")}</Chip>;
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
            {troubleOf(one) !== null && (
              <p className={css.trouble} dir="auto">
                {troubleOf(one)}
              </p>
            )}
          </li>
        )}
      </Listing>
    </SettingsPage>
  );
}
