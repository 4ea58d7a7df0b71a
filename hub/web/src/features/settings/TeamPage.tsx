import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import { profilesQuery } from "../../api/lists";
import { colleagueName } from "../../lib/people";
import { useLive } from "../../realtime/live";
import { Avatar } from "../../ui/Avatar";
import { Chip } from "../../ui/Chip";
import { roleLabel } from "../../i18n/labels";
import { Listing } from "./Listing";
import css from "./Settings.module.css";
import { SettingsPage } from "./SettingsFrame";

export function TeamPage() {
  const { t } = useTranslation();
  const profiles = useQuery(profilesQuery);
  const presence = useLive((live) => live.presence);
  const me = useLive((live) => live.session?.user_id);
  return (
    <SettingsPage title={t("settings.team")} intro={t("team.intro")}>
      <Listing query={profiles} empty={t("team.empty")}>
        {(one) => {
          const online = one.id === me || presence.has(one.id);
          return (
            <li key={one.id} className={css.entry}>
              <Avatar name={colleagueName(one, one.id)} size="md" online={online} />
              <div>
                <p className={css.entryName}>
                  <bdi>{colleagueName(one, one.id)}</bdi> {one.id === me && <Chip>{t("team.you")}</Chip>}
                </p>
                <p className={css.entrySub}>
                  <bdi dir="ltr">{one.email}</bdi>
                </p>
              </div>
              <div className={css.entryEnd}>
                <Chip>{roleLabel(t, one.role)}</Chip>
                {one.is_active ? (
                  <Chip tone={online ? "good" : "plain"}>{online ? t("team.online") : t("team.away")}</Chip>
                ) : (
                  <Chip tone="bad">{t("team.disabled")}</Chip>
                )}
              </div>
            </li>
          );
        }}
      </Listing>
    </SettingsPage>
  );
}
