import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import { profilesQuery } from "../../api/lists";
import { useSession } from "../../api/session";
import { fullName } from "../../lib/people";
import { useLive } from "../../realtime/live";
import { Avatar } from "../../ui/Avatar";
import { Chip } from "../../ui/Chip";
import { permissionLabel, roleLabel } from "../../i18n/labels";
import css from "./Settings.module.css";
import { SettingsPage } from "./SettingsFrame";

export function ProfilePage() {
  const { t } = useTranslation();
  const session = useSession();
  const live = useLive((state) => state.session);
  const { data: profiles } = useQuery(profilesQuery);
  const email = session.status === "signed-in" ? session.email : "";
  const profile = profiles?.find((one) => session.status === "signed-in" && one.id === session.userId);
  const name = (profile && fullName(profile)) || t("profile.noName");
  const role = live?.role ?? profile?.role;
  return (
    <SettingsPage title={t("settings.profile")} intro={t("profile.intro")}>
      <section className={css.card}>
        <div className={css.row}>
          <Avatar name={name} size="lg" />
          <div className={css.rowText}>
            <p className={css.entryName}>
              <bdi>{name}</bdi>
            </p>
            <p className={css.entrySub}>
              <bdi dir="ltr">{email}</bdi>
            </p>
          </div>
          {role && <Chip tone="good">{roleLabel(t, role)}</Chip>}
        </div>
        {live && live.permissions.length > 0 && (
          <div>
            <p className={css.label}>{t("profile.permissions")}</p>
            <div className={css.chips}>
              {live.permissions.map((one) => (
                <Chip key={one}>{permissionLabel(t, one)}</Chip>
              ))}
            </div>
          </div>
        )}
      </section>
    </SettingsPage>
  );
}
