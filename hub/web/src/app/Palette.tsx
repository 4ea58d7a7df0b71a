import { useComputedColorScheme, useMantineColorScheme } from "@mantine/core";
import { Spotlight, type SpotlightActionData, type SpotlightActionGroupData } from "@mantine/spotlight";
import { useNavigate } from "@tanstack/react-router";
import {
  Archive, CircleDollarSign, Code, Inbox, Keyboard, Languages, LogOut, MessageSquareText, Moon, Palette as PaletteIcon, Radio, Search,
  UserCheck, UserRound, UserX, Users,
} from "lucide-react";
import { useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { useQuery } from "@tanstack/react-query";
import { profilesQuery } from "../api/lists";
import type { Contact, Conversation } from "../api/models";
import { signOut } from "../api/session";
import { assign, closeOrReopen } from "./deeds";
import { setLanguage } from "../i18n";
import { colleagueName, contactName, searchText } from "../lib/people";
import { finder, fold, matches } from "../lib/text";
import { useLive } from "../realtime/live";
import { startDeal } from "./dealing";
import { useMay } from "./may";
import { useOpenConversation } from "./open";
import css from "./Palette.module.css";

const CONVERSATIONS_SHOWN = 8;

const byActivity = (a: Conversation, b: Conversation): number =>
  (a.last_message_at ?? "") < (b.last_message_at ?? "") ? 1 : -1;

function isGroup(entry: SpotlightActionData | SpotlightActionGroupData): entry is SpotlightActionGroupData {
  return "actions" in entry;
}

/** Pages, deeds on the open conversation, conversations by name. */
export function Palette({ onHelp }: { onHelp: () => void }) {
  const { t, i18n } = useTranslation();
  const navigate = useNavigate();
  const { setColorScheme } = useMantineColorScheme();
  const scheme = useComputedColorScheme("light");
  const open = useOpenConversation();
  const conversations = useLive((live) => live.inbox.conversations);
  const contacts = useLive((live) => live.inbox.contacts);
  const me = useLive((live) => live.session?.user_id);
  const crm = useMay("can_access_crm");
  const { data: profiles } = useQuery(profilesQuery);
  const [opened, setOpened] = useState(false);
  const [query, setQuery] = useState("");

  const talks = useMemo(
    () => (opened ? findTalks(conversations, contacts, query) : []),
    [opened, query, conversations, contacts],
  );
  const groups = useMemo<SpotlightActionGroupData[]>(() => {
    // Closed, it has nothing to do with what goes on in the inbox.
    if (!opened) return [];
    const here: SpotlightActionData[] = [];
    if (open) {
      const closed = open.status === "CLOSED";
      here.push({
        id: "close",
        label: closed ? t("thread.reopenLong") : t("thread.closeLong"),
        leftSection: <Archive size={18} />,
        onClick: () => void closeOrReopen(open),
      });
      if (crm) {
        here.push({
          id: "deal",
          label: t("deal.new"),
          leftSection: <CircleDollarSign size={18} />,
          onClick: () => startDeal(open.id),
        });
      }
      if (me && open.assignee_id !== me) {
        here.push({
          id: "assign-me",
          label: t("thread.assignMe"),
          leftSection: <UserCheck size={18} />,
          onClick: () => void assign(open, me, t("team.you")),
        });
      }
      if (open.assignee_id !== null) {
        here.push({
          id: "unassign",
          label: t("thread.unassign"),
          leftSection: <UserX size={18} />,
          onClick: () => void assign(open, null, null),
        });
      }
      for (const one of profiles ?? []) {
        if (one.id === me || one.id === open.assignee_id || !one.is_active) continue;
        here.push({
          id: `assign-${one.id}`,
          label: `${t("thread.assign")}: ${colleagueName(one, one.id)}`,
          leftSection: <UserRound size={18} />,
          onClick: () => void assign(open, one.id, colleagueName(one, one.id)),
        });
      }
    }
    const found = talks.map((row): SpotlightActionData => ({
      id: row.id,
      label: contactName(contacts.get(row.contact_id), t("contact.unknown")),
      description: row.last_message_preview ?? "",
      leftSection: <MessageSquareText size={18} />,
      onClick: () => void navigate({ to: "/inbox/$conversationId", params: { conversationId: row.id } }),
    }));
    const page = (id: string, label: string, leftSection: React.ReactNode, to: string): SpotlightActionData => ({
      id, label, leftSection, onClick: () => void navigate({ to }),
    });
    return [
      { group: t("palette.here"), actions: here },
      { group: t("palette.conversations"), actions: found },
      {
        group: t("palette.pages"),
        actions: [
          page("inbox", t("nav.inbox"), <Inbox size={18} />, "/inbox"),
          page("profile", t("settings.profile"), <UserRound size={18} />, "/settings/profile"),
          page("appearance", t("settings.appearance"), <PaletteIcon size={18} />, "/settings/appearance"),
          page("shortcuts", t("settings.shortcuts"), <Keyboard size={18} />, "/settings/shortcuts"),
          page("channels", t("settings.channels"), <Radio size={18} />, "/settings/channels"),
          page("team", t("settings.team"), <Users size={18} />, "/settings/team"),
          page("api", t("settings.api"), <Code size={18} />, "/settings/api"),
        ],
      },
      {
        group: t("palette.app"),
        actions: [
          {
            id: "theme",
            label: t("palette.toggleTheme"),
            leftSection: <Moon size={18} />,
            onClick: () => setColorScheme(scheme === "dark" ? "light" : "dark"),
          },
          {
            id: "language",
            label: t("palette.toggleLanguage"),
            keywords: ["language", "arabic", "english", "العربية", "لغة"],
            leftSection: <Languages size={18} />,
            onClick: () => void setLanguage(i18n.language === "ar" ? "en" : "ar"),
          },
          { id: "help", label: t("nav.shortcuts"), leftSection: <Keyboard size={18} />, onClick: onHelp },
          {
            id: "sign-out",
            label: t("nav.signOut"),
            leftSection: <LogOut size={18} className="mirrored" />,
            onClick: () => void signOut(),
          },
        ],
      },
    ];
  }, [t, i18n.language, opened, open, me, crm, profiles, talks, contacts, navigate, scheme, setColorScheme, onHelp]);

  return (
    <Spotlight
      // Mantine compares event.key, which is another letter on an Arabic layout; the shell listens by key place.
      shortcut={null}
      actions={groups}
      nothingFound={t("palette.nothing")}
      scrollable
      maxHeight={440}
      radius="lg"
      centered={false}
      overlayProps={{ backgroundOpacity: 0.35, blur: 0 }}
      classNames={{ action: css.action, actionsGroup: css.group }}
      onSpotlightOpen={() => setOpened(true)}
      onSpotlightClose={() => setOpened(false)}
      query={query}
      onQueryChange={setQuery}
      filter={(words, entries) =>
        entries.filter(isGroup).flatMap((group) => {
          // Conversations were found among all of them already, by more than what is shown here.
          const shown =
            group.group === t("palette.conversations")
              ? group.actions
              : group.actions.filter((action) =>
                  matches([action.label, action.keywords ?? []].flat().join(" "), words),
                );
          return shown.length ? [{ ...group, actions: shown }] : [];
        })
      }
      searchProps={{
        leftSection: <Search size={18} aria-hidden />,
        placeholder: t("palette.placeholder"),
        "aria-label": t("palette.placeholder"),
      }}
    />
  );
}

/** The most recent conversations whose contact matches. */
function findTalks(
  conversations: ReadonlyMap<string, Conversation>, contacts: ReadonlyMap<string, Contact>, query: string,
): Conversation[] {
  const matching = finder(query);
  const found: Conversation[] = [];
  for (const row of conversations.values()) {
    const person = contacts.get(row.contact_id);
    if (matching(person ? searchText(person) : fold(row.last_message_preview ?? ""))) found.push(row);
  }
  return found.sort(byActivity).slice(0, CONVERSATIONS_SHOWN);
}
