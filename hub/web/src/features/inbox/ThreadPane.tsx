import { ActionIcon, Button, Menu, Skeleton, Tooltip } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import {
  Archive, ArchiveRestore, ArrowLeft, Check, ChevronDown, PanelRightClose, PanelRightOpen, Paperclip, SearchX, UserCheck, UserPlus,
  UserX,
} from "lucide-react";
import { useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { LinkBadge } from "../../app/LinkBadge";
import { channelsQuery, profilesQuery } from "../../api/lists";
import type { Conversation } from "../../api/models";
import { colleagueName, contactName } from "../../lib/people";
import { useLive } from "../../realtime/live";
import { Avatar } from "../../ui/Avatar";
import { EmptyState } from "../../ui/EmptyState";
import { ChannelIcon } from "../../app/ChannelIcon";
import { Composer, type ComposerHandle } from "./Composer";
import { assign, closeOrReopen } from "../../app/deeds";
import { channelLabel } from "../../i18n/labels";
import { Thread } from "./Thread";
import css from "./ThreadPane.module.css";

export interface ThreadPaneProps {
  id: string;
  me: string;
  assigning: boolean;
  onAssigning: (open: boolean) => void;
  panelShown: boolean;
  onTogglePanel: () => void;
}

export function ThreadPane({ id, me, assigning, onAssigning, panelShown, onTogglePanel }: ThreadPaneProps) {
  const { t } = useTranslation();
  const conversation = useLive((live) => live.inbox.conversations.get(id));
  const contact = useLive((live) => (conversation ? live.inbox.contacts.get(conversation.contact_id) : undefined));
  const missing = useLive((live) => live.missing.has(id) && !live.inbox.conversations.has(id));
  const { data: channels } = useQuery(channelsQuery);
  const composer = useRef<ComposerHandle>(null);

  if (missing) {
    return (
      <EmptyState
        icon={<SearchX size={24} />}
        title={t("thread.missing")}
        action={
          <Button component={Link} to="/inbox" variant="default">
            {t("app.toInbox")}
          </Button>
        }
      />
    );
  }
  const name = contactName(contact, conversation ? t("contact.unknown") : "");
  const channel = channels?.find((one) => one.id === conversation?.channel_account_id);
  const closed = conversation?.status === "CLOSED";

  return (
    <>
      <header className={css.head}>
        <ActionIcon
          renderRoot={(props) => <Link to="/inbox" from="/inbox" search={(old) => old} {...props} />}
          className={css.back}
          aria-label={t("thread.back")}
          size={40}
        >
          <ArrowLeft size={20} className="mirrored" />
        </ActionIcon>
        {conversation ? <Avatar name={name} size="sm" /> : <Skeleton height={28} width={28} radius={10} />}
        <div className={css.who}>
          <h2 className={css.name}>
            {conversation ? <bdi>{name}</bdi> : <Skeleton height={12} width={140} component="span" />}
          </h2>
          <p className={css.channel}>
            <ChannelIcon type={channel?.type} size={10} />
            <bdi>{channel?.name ?? channelLabel(t, channel?.type)}</bdi>
          </p>
        </div>
        <LinkBadge quiet />
        {conversation && (
          <>
            <AssignMenu conversation={conversation} me={me} opened={assigning} onOpened={onAssigning} />
            <Tooltip label={`${closed ? t("thread.reopenLong") : t("thread.closeLong")} (E)`}>
              <Button
                variant="default"
                className={css.close}
                leftSection={closed ? <ArchiveRestore size={16} /> : <Archive size={16} />}
                onClick={() => void closeOrReopen(conversation)}
              >
                <span className={css.closeText}>{closed ? t("thread.reopen") : t("thread.close")}</span>
              </Button>
            </Tooltip>
          </>
        )}
        <Tooltip label={panelShown ? t("thread.hideDetails") : t("thread.details")}>
          <ActionIcon
            onClick={onTogglePanel}
            aria-label={t("thread.details")}
            aria-expanded={panelShown}
            size={38}
          >
            {panelShown ? (
              <PanelRightClose size={19} className="mirrored" />
            ) : (
              <PanelRightOpen size={19} className="mirrored" />
            )}
          </ActionIcon>
        </Tooltip>
      </header>
      <DropArea onFiles={(files) => composer.current?.attach(files)}>
        <Thread id={id} me={me} name={name} />
        {conversation && (
          <Composer
            conversation={conversation}
            contact={contact}
            channel={channel}
            me={me}
            name={name}
            handle={composer}
          />
        )}
      </DropArea>
    </>
  );
}

/** Takes files that are dropped anywhere on the conversation. Other things that are dragged pass. */
function DropArea({ children, onFiles }: { children: React.ReactNode; onFiles: (files: readonly File[]) => void }) {
  const { t } = useTranslation("inbox");
  const [over, setOver] = useState(false);
  // Entering a child is told before leaving its parent.
  const depth = useRef(0);
  const carries = (event: React.DragEvent) => event.dataTransfer.types.includes("Files");
  return (
    <div
      className={css.drop}
      data-over={over || undefined}
      onDragEnter={(event) => {
        if (!carries(event)) return;
        depth.current += 1;
        setOver(true);
      }}
      onDragOver={(event) => {
        if (carries(event)) event.preventDefault();
      }}
      onDragLeave={(event) => {
        if (!carries(event)) return;
        depth.current -= 1;
        if (depth.current <= 0) setOver(false);
      }}
      onDrop={(event) => {
        if (!carries(event)) return;
        event.preventDefault();
        depth.current = 0;
        setOver(false);
        onFiles([...event.dataTransfer.files]);
      }}
    >
      {children}
      {over && (
        <div className={css.overlay} aria-hidden>
          <Paperclip size={28} />
          <span>{t("tray.drop")}</span>
        </div>
      )}
    </div>
  );
}

interface AssignMenuProps {
  conversation: Conversation;
  me: string;
  opened: boolean;
  onOpened: (open: boolean) => void;
}

function AssignMenu({ conversation, me, opened, onOpened }: AssignMenuProps) {
  const { t } = useTranslation();
  const { data: profiles } = useQuery(profilesQuery);
  const presence = useLive((live) => live.presence);
  const holder = profiles?.find((one) => one.id === conversation.assignee_id);
  const name = conversation.assignee_id ? colleagueName(holder, "…") : t("thread.nobody");
  const others = (profiles ?? []).filter((one) => one.is_active && one.id !== me);
  return (
    <Menu opened={opened} onChange={onOpened} position="bottom-end" width={250}>
      <Menu.Target>
        <Button
          variant="default"
          className={css.assign}
          aria-label={t("thread.assignLabel", { name })}
          rightSection={<ChevronDown size={14} aria-hidden />}
          leftSection={
            conversation.assignee_id ? <Avatar name={name} size="xs" /> : <UserPlus size={16} className={css.assignIcon} />
          }
        >
          <bdi className={css.assignText}>{name}</bdi>
        </Button>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Item
          leftSection={<UserCheck size={16} />}
          rightSection={conversation.assignee_id === me ? <Check size={14} /> : null}
          onClick={() => void assign(conversation, me, t("team.you"))}
        >
          {t("thread.assignMe")}
        </Menu.Item>
        {others.map((one) => (
          <Menu.Item
            key={one.id}
            leftSection={<Avatar name={colleagueName(one, one.id)} size="xs" online={presence.has(one.id)} />}
            rightSection={conversation.assignee_id === one.id ? <Check size={14} /> : null}
            onClick={() => void assign(conversation, one.id, colleagueName(one, one.id))}
          >
            <bdi>{colleagueName(one, one.id)}</bdi>
          </Menu.Item>
        ))}
        {conversation.assignee_id !== null && (
          <>
            <Menu.Divider />
            <Menu.Item leftSection={<UserX size={16} />} onClick={() => void assign(conversation, null, null)}>
              {t("thread.unassign")}
            </Menu.Item>
          </>
        )}
      </Menu.Dropdown>
    </Menu>
  );
}
