import { Button, TextInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import { announce, complain } from "../../app/deeds";
import { profilesQuery } from "../../api/lists";
import type { Profile } from "../../api/models";
import { patch } from "../../api/rest";
import { useSession } from "../../api/session";
import { permissionLabel, roleLabel } from "../../i18n/labels";
import { fullName } from "../../lib/people";
import { useLive } from "../../realtime/live";
import { Avatar } from "../../ui/Avatar";
import { Chip } from "../../ui/Chip";
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
        {profile && <NameForm key={`${profile.first_name ?? ""} ${profile.last_name ?? ""}`} profile={profile} />}
      </section>
      {live && live.permissions.length > 0 && (
        <section className={css.card}>
          <p className={css.label}>{t("profile.permissions")}</p>
          <div className={css.chips}>
            {live.permissions.map((one) => (
              <Chip key={one}>{permissionLabel(t, one)}</Chip>
            ))}
          </div>
        </section>
      )}
    </SettingsPage>
  );
}

function NameForm({ profile }: { profile: Profile }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const form = useForm({
    initialValues: { first_name: profile.first_name ?? "", last_name: profile.last_name ?? "" },
  });
  const saving = useMutation({
    mutationFn: (values: { first_name: string; last_name: string }) =>
      patch("profiles", { id: `eq.${profile.id}` }, values),
    onSuccess: () => {
      announce(t("profile.saved"));
      void client.invalidateQueries({ queryKey: profilesQuery.queryKey });
    },
    onError: (error) => complain(error),
  });
  return (
    <form
      className={css.nameForm}
      onSubmit={form.onSubmit((values) =>
        saving.mutate({ first_name: values.first_name.trim(), last_name: values.last_name.trim() }),
      )}
    >
      <TextInput label={t("profile.first")} dir="auto" maxLength={100} {...form.getInputProps("first_name")} />
      <TextInput label={t("profile.last")} dir="auto" maxLength={100} {...form.getInputProps("last_name")} />
      <Button type="submit" variant="default" disabled={!form.isDirty()} loading={saving.isPending}>
        {t("profile.save")}
      </Button>
    </form>
  );
}
