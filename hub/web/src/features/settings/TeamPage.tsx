import { Button } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { announce, complain } from "../../app/deeds";
import { useSession } from "../../api/session";
import { roleLabel } from "../../i18n/labels";
import { colleagueName } from "../../lib/people";
import { useLive } from "../../realtime/live";
import { Avatar } from "../../ui/Avatar";
import { Chip } from "../../ui/Chip";
import { Invitations } from "./Invitations";
import { Listing } from "./Listing";
import { MemberDialog } from "./MemberDialog";
import css from "./Settings.module.css";
import { SettingsPage } from "./SettingsFrame";
import { type Member, mayChange, membersQuery, updateMember } from "./people";

export function TeamPage() {
  const { t } = useTranslation();
  const members = useQuery(membersQuery);
  const session = useSession();
  const me = members.data?.find((one) => session.status === "signed-in" && one.id === session.userId);
  const [changing, setChanging] = useState<Member | null>(null);
  return (
    <SettingsPage title={t("settings.team")} intro={t("team.intro")}>
      <Listing query={members} empty={t("team.empty")}>
        {(one) => <Entry key={one.id} one={one} me={me} onChange={() => setChanging(one)} />}
      </Listing>
      {me?.permissions.can_manage_team && <Invitations me={me} />}
      {changing && me && <MemberDialog one={changing} me={me} onClose={() => setChanging(null)} />}
    </SettingsPage>
  );
}

interface EntryProps {
  one: Member;
  me: Member | undefined;
  onChange: () => void;
}

function Entry({ one, me, onChange }: EntryProps) {
  const { t } = useTranslation();
  const { t: words } = useTranslation("people");
  const client = useQueryClient();
  const present = useLive((live) => live.presence.has(one.id));
  const online = one.id === me?.id || present;
  const name = colleagueName(one, one.id);
  const reactivating = useMutation({
    mutationFn: () => updateMember(one.id, { is_active: true }),
    onSuccess: () => {
      announce(words("reactivated", { name }));
      return client.invalidateQueries({ queryKey: ["rest", "profiles"] });
    },
    onError: (error) => complain(error),
  });
  return (
    <li className={css.entry} data-testid="member">
      <Avatar name={name} size="md" online={one.is_active && online} />
      <div>
        <p className={css.entryName}>
          <bdi>{name}</bdi> {one.id === me?.id && <Chip>{t("team.you")}</Chip>}
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
        {mayChange(me, one) &&
          (one.is_active ? (
            <Button size="compact-sm" variant="default" aria-label={words("changeLabel", { name })} onClick={onChange}>
              {words("change")}
            </Button>
          ) : (
            <Button
              size="compact-sm"
              variant="default"
              aria-label={words("reactivateLabel", { name })}
              loading={reactivating.isPending}
              onClick={() => reactivating.mutate()}
            >
              {words("reactivate")}
            </Button>
          ))}
      </div>
    </li>
  );
}
