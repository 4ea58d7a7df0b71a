import { Alert, Button, Modal, TextInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { useMutation, useQuery } from "@tanstack/react-query";
import { Building2 } from "lucide-react";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { complain } from "../../app/deeds";
import { organizationQuery } from "../../api/lists";
import { createOrganization, enterOrganization, leaveOrganization, organizationsQuery } from "../../api/organizations";
import { signOut } from "../../api/session";
import { Chip } from "../../ui/Chip";
import { Listing } from "./Listing";
import css from "./Settings.module.css";
import { SettingsPage } from "./SettingsFrame";
import { spokenRefusal } from "./refusals";

/** All that this page has read belongs to the organization that was left: the app begins anew in the other. */
const beginAnew = () => location.assign("/inbox");

export function OrganizationsPage() {
  const { t: words } = useTranslation("people");
  const { t } = useTranslation();
  const organizations = useQuery(organizationsQuery);
  const { data: here } = useQuery(organizationQuery);
  const current = organizations.data?.find(({ id }) => id === here?.[0]?.id);
  const entering = useMutation({
    mutationFn: enterOrganization,
    onSuccess: beginAnew,
    onError: (error) => complain(error),
  });
  return (
    <SettingsPage title={words("org.title")} intro={words("org.intro")}>
      <Listing query={organizations} empty={t("app.notFound")}>
        {({ id, name }) => (
          <li key={id} className={css.entry} data-testid="organization">
            <Building2 size={20} aria-hidden />
            <p className={css.entryName}>
              <bdi>{name}</bdi>
            </p>
            <div className={css.entryEnd}>
              {id === current?.id ? (
                <Chip tone="good">{words("org.here")}</Chip>
              ) : (
                <Button
                  size="compact-sm"
                  variant="default"
                  aria-label={words("org.enterLabel", { name })}
                  loading={entering.isPending && entering.variables === id}
                  onClick={() => entering.mutate(id)}
                >
                  {words("org.enter")}
                </Button>
              )}
            </div>
          </li>
        )}
      </Listing>
      <Create />
      {current && <Leave name={current.name} />}
    </SettingsPage>
  );
}

function Create() {
  const { t: words, i18n } = useTranslation("people");
  const form = useForm({
    initialValues: { name: "" },
    validate: { name: (value) => (value.trim() ? null : words("org.nameNeeded")) },
  });
  const creating = useMutation({
    mutationFn: (name: string) =>
      createOrganization(name, Intl.DateTimeFormat().resolvedOptions().timeZone, i18n.language),
    onSuccess: beginAnew,
    onError: (error) => complain(error),
  });
  return (
    <section className={css.card} aria-labelledby="new-organization">
      <div>
        <h3 className={css.curlTitle} id="new-organization">
          {words("org.create")}
        </h3>
        <p className={css.hint}>{words("org.createHint")}</p>
      </div>
      <form
        className={css.keyForm}
        onSubmit={form.onSubmit(
          ({ name }) => creating.mutate(name.trim()),
          () => form.getInputNode("name")?.focus(),
        )}
      >
        <TextInput
          label={words("org.name")}
          dir="auto"
          maxLength={200}
          autoComplete="organization"
          {...form.getInputProps("name")}
          key={form.key("name")}
        />
        <Button type="submit" variant="default" loading={creating.isPending}>
          {words("org.make")}
        </Button>
      </form>
    </section>
  );
}

function Leave({ name }: { name: string }) {
  const { t } = useTranslation();
  const { t: words } = useTranslation("people");
  const [asking, setAsking] = useState(false);
  const leaving = useMutation({ mutationFn: leaveOrganization, onSuccess: signOut });
  const close = () => {
    setAsking(false);
    leaving.reset();
  };
  return (
    <section className={css.card}>
      <div className={css.row}>
        <p className={css.hint}>{words("org.leaveHint")}</p>
        <Button variant="default" onClick={() => setAsking(true)}>
          {words("org.leave", { name })}
        </Button>
      </div>
      <Modal
        opened={asking}
        onClose={close}
        title={words("org.leave", { name })}
        closeButtonProps={{ "aria-label": t("common.close") }}
      >
        <div className={css.dialog}>
          <p className={css.value}>{words("org.leaveSure", { name })}</p>
          {leaving.error && (
            <Alert color="red" variant="light" role="alert">
              {spokenRefusal(leaving.error)}
            </Alert>
          )}
          <div className={css.entryEnd}>
            <Button variant="default" data-autofocus onClick={close}>
              {words("org.stay")}
            </Button>
            <Button color="red.9" loading={leaving.isPending} onClick={() => leaving.mutate()}>
              {words("org.leave", { name })}
            </Button>
          </div>
        </div>
      </Modal>
    </section>
  );
}
