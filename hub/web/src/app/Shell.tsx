import { ActionIcon, Menu, Tooltip, useMantineColorScheme, useComputedColorScheme } from "@mantine/core";
import { useHotkeys } from "@mantine/hooks";
import { notifications } from "@mantine/notifications";
import { useQuery } from "@tanstack/react-query";
import { Link, Outlet, useNavigate, useRouterState } from "@tanstack/react-router";
import { Command, Inbox, Keyboard, Languages, LogOut, Moon, Settings, Smartphone, Sun } from "lucide-react";
import { Suspense, lazy, useEffect, useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { configQuery, profilesQuery } from "../api/lists";
import { signOut, useSession } from "../api/session";
import { setLanguage } from "../i18n";
import { colleagueName } from "../lib/people";
import { startLive, stopLive, useLive } from "../realtime/live";
import { unreadCount } from "../realtime/reducer";
import { Avatar } from "../ui/Avatar";
import { Counter } from "../ui/Chip";
import { cx } from "../ui/cx";
import { useUnreadBadge } from "./badge";
import { openPalette } from "./openPalette";
import { usePrefs } from "./prefs";
import { queryClient, tablesChanged } from "./query";
import css from "./Shell.module.css";

const Palette = lazy(async () => ({ default: (await import("./Palette")).Palette }));
const OrganizationItems = lazy(() =>
  import("./OrganizationItems").then(
    (items) => ({ default: items.OrganizationItems }),
    () => ({ default: () => null }),
  ),
);
const ShortcutSheet = lazy(async () => ({ default: (await import("./ShortcutSheet")).ShortcutSheet }));

/** Conversations that are open and hold something unread. */
function useUnreadConversations(): number {
  const conversations = useLive((live) => live.inbox.conversations);
  const reads = useLive((live) => live.inbox.reads);
  return useMemo(() => {
    let total = 0;
    for (const row of conversations.values()) {
      if (row.status === "OPEN" && unreadCount(row, reads.get(row.id)) > 0) total += 1;
    }
    return total;
  }, [conversations, reads]);
}

export function Shell() {
  const { t, i18n } = useTranslation();
  const navigate = useNavigate();
  const session = useSession();
  const userId = session.status === "signed-in" ? session.userId : null;
  const [help, setHelp] = useState<boolean | null>(null); // null: never asked for, so not loaded
  const singleKeys = usePrefs((prefs) => prefs.singleKeys);
  const unread = useUnreadConversations();
  const { data: profiles } = useQuery({ ...profilesQuery, enabled: userId !== null });
  const { data: config } = useQuery(configQuery);
  const path = useRouterState({ select: (state) => state.location.pathname });
  const inThread = /^\/inbox\/.+/.test(path);
  const { setColorScheme } = useMantineColorScheme();
  const scheme = useComputedColorScheme("light");

  useUnreadBadge(unread, t("app.name"));

  useEffect(() => {
    if (userId === null) {
      stopLive();
      queryClient.clear();
      notifications.clean();
      const { pathname, href } = { pathname: location.pathname, href: location.pathname + location.search };
      void navigate({ to: "/sign-in", search: pathname === "/" ? {} : { next: href } });
      return undefined;
    }
    startLive(userId, tablesChanged);
    return stopLive;
  }, [userId, navigate]);

  const notices = usePrefs((prefs) => prefs.notices);
  useEffect(() => {
    if (!notices || userId === null || !("Notification" in window) || Notification.permission !== "granted") {
      return undefined;
    }
    let stop: (() => void) | null = null;
    let over = false;
    void import("./notices").then((one) => {
      if (!over) stop = one.startNotices(userId);
    });
    return () => {
      over = true;
      stop?.();
    };
  }, [notices, userId]);

  // By place on the keyboard: on an Arabic layout `event.key` of K is "ن".
  useHotkeys([["mod+K", openPalette, { usePhysicalKeys: true }]], []);
  useHotkeys(
    singleKeys
      ? [
          ["shift+Slash", () => setHelp(true), { usePhysicalKeys: true }],
          // Where `?` stands somewhere else, both places open it.
          ["shift+?", () => setHelp(true)],
        ]
      : [],
  );

  if (userId === null || session.status !== "signed-in") return null;
  const name = colleagueName(profiles?.find((one) => one.id === userId), session.email);
  const phone = config?.demo?.phone_url ?? null;

  return (
    <div className={cx(css.shell, inThread && css.inThread)}>
      <a className={css.skip} href="#main">
        {t("app.skip")}
      </a>
      <nav className={css.rail} aria-label={t("nav.label")}>
        <span className={css.mark} aria-hidden>
          <svg viewBox="0 0 32 32" width="34" height="34">
            <rect width="32" height="32" rx="10" fill="#1f4a42" />
            <path
              d="M9 10.500A2.500 2.500 0 0 1 11.500 8h9a2.500 2.500 0 0 1 2.500 2.500v7a2.500 2.500 0 0 1-2.500 2.500H15l-4.200 3.600c-.5.4-1.100.1-1.100-.5V19.800A2.500 2.500 0 0 1 9 17.500z"
              fill="#f4d58d"
            />
          </svg>
        </span>
        <Tooltip label={t("nav.inbox")} position="right">
          <Link to="/inbox" className={css.item} activeProps={{ "data-active": true }}>
            <Inbox size={20} aria-hidden />
            <span className={css.itemText}>{t("nav.inbox")}</span>
            {unread > 0 && (
              <span className={css.itemCounter}>
                <Counter value={unread} label={t("nav.unread", { count: unread })} />
              </span>
            )}
          </Link>
        </Tooltip>
        <Tooltip label={t("nav.settings")} position="right">
          <Link to="/settings" className={css.item} activeProps={{ "data-active": true }}>
            <Settings size={20} aria-hidden />
            <span className={css.itemText}>{t("nav.settings")}</span>
          </Link>
        </Tooltip>
        <Tooltip label={`${t("nav.search")} (Ctrl K)`} position="right">
          <button type="button" className={css.item} onClick={openPalette}>
            <Command size={20} aria-hidden />
            <span className={css.itemText}>{t("nav.search")}</span>
          </button>
        </Tooltip>
        {phone && (
          <Tooltip label={t("nav.phone")} position="right">
            <a className={css.item} href={phone} target="_blank" rel="noopener noreferrer">
              <Smartphone size={20} aria-hidden />
              <span className={css.itemText}>{t("nav.phone")}</span>
            </a>
          </Tooltip>
        )}
        <span className={css.spring} />
        <Menu position="right-end" width={232}>
          <Menu.Target>
            <ActionIcon
              variant="transparent"
              size={40}
              className={css.account}
              aria-label={t("nav.account", { name })}
            >
              <Avatar name={name} size="sm" />
            </ActionIcon>
          </Menu.Target>
          <Menu.Dropdown>
            <Menu.Label>
              <bdi>{name}</bdi>
            </Menu.Label>
            <Menu.Item
              leftSection={scheme === "dark" ? <Sun size={16} /> : <Moon size={16} />}
              onClick={() => setColorScheme(scheme === "dark" ? "light" : "dark")}
            >
              {t("palette.toggleTheme")}
            </Menu.Item>
            <Menu.Item
              leftSection={<Languages size={16} />}
              onClick={() => void setLanguage(i18n.language === "ar" ? "en" : "ar")}
            >
              {t("palette.toggleLanguage")}
            </Menu.Item>
            <Menu.Item leftSection={<Keyboard size={16} />} onClick={() => setHelp(true)}>
              {t("nav.shortcuts")}
            </Menu.Item>
            <Suspense>
              <OrganizationItems />
            </Suspense>
            <Menu.Divider />
            <Menu.Item leftSection={<LogOut size={16} className="mirrored" />} onClick={() => void signOut()}>
              {t("nav.signOut")}
            </Menu.Item>
          </Menu.Dropdown>
        </Menu>
      </nav>
      <div className={css.page}>
        <Outlet />
      </div>
      <Suspense>
        <Palette onHelp={() => setHelp(true)} />
        {help !== null && <ShortcutSheet opened={help} onClose={() => setHelp(false)} />}
      </Suspense>
    </div>
  );
}
