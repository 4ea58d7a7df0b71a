import { ActionIcon } from "@mantine/core";
import { Link, Outlet, useRouterState } from "@tanstack/react-router";
import { ArrowLeft, Building2, Code, Keyboard, Palette, Radio, ScrollText, ShieldCheck, UserRound, Users } from "lucide-react";
import { type ReactNode, Suspense, lazy } from "react";
import { useTranslation } from "react-i18next";
import { LinkBadge } from "../../app/LinkBadge";
import "../../i18n/people";
import { useLive } from "../../realtime/live";
import { cx } from "../../ui/cx";
import css from "./Settings.module.css";

/** Comes with the page it counts for: a query in this frame, or a chunk of its own, would make the entry larger.
 * Where it cannot be fetched, the settings go without. */
const FailuresBadge = lazy(() =>
  import("./ChannelsPage").then(
    (page) => ({ default: page.FailuresBadge }),
    () => ({ default: () => null }),
  ),
);

export function SettingsFrame() {
  const { t } = useTranslation();
  const { t: words } = useTranslation("people");
  // The hub shows the log to these alone.
  const leads = useLive(({ session }) => session?.role === "OWNER" || session?.role === "ADMIN");
  const home = useRouterState({ select: (state) => /^\/settings\/?$/.test(state.location.pathname) });
  return (
    <div className={cx(css.frame, home && css.home)}>
      <nav className={css.nav} aria-label={t("settings.title")}>
        <header className={css.navHead}>
          <h1 className={css.navTitle}>{t("settings.title")}</h1>
          <LinkBadge quiet />
        </header>
        <p className={css.group}>{t("settings.you")}</p>
        <Item to="/settings/profile" icon={<UserRound size={17} />} label={t("settings.profile")} />
        <Item to="/settings/security" icon={<ShieldCheck size={17} />} label={words("security.title")} />
        <Item to="/settings/appearance" icon={<Palette size={17} />} label={t("settings.appearance")} />
        <Item to="/settings/shortcuts" icon={<Keyboard size={17} />} label={t("settings.shortcuts")} />
        <p className={css.group}>{t("settings.organization")}</p>
        <Item
          to="/settings/channels"
          icon={<Radio size={17} />}
          label={t("settings.channels")}
          badge={<FailuresBadge />}
        />
        <Item to="/settings/team" icon={<Users size={17} />} label={t("settings.team")} />
        <Item to="/settings/organizations" icon={<Building2 size={17} />} label={words("org.title")} />
        <Item to="/settings/api" icon={<Code size={17} />} label={t("settings.api")} />
        {leads && <Item to="/settings/audit" icon={<ScrollText size={17} />} label={words("audit.title")} />}
      </nav>
      <main className={css.main} id="main" tabIndex={-1}>
        <Outlet />
      </main>
    </div>
  );
}

interface ItemProps {
  to: string;
  icon: ReactNode;
  label: string;
  badge?: ReactNode;
}

function Item({ to, icon, label, badge }: ItemProps) {
  return (
    <Link to={to} className={css.item} activeProps={{ "data-active": true }}>
      <span aria-hidden className={css.itemIcon}>
        {icon}
      </span>
      {label}
      {badge !== undefined && (
        <span className={css.itemBadge}>
          <Suspense>{badge}</Suspense>
        </span>
      )}
    </Link>
  );
}

/** Title, one sentence, content; on a narrow screen the way back. */
export function SettingsPage({ title, intro, children }: { title: string; intro: string; children: ReactNode }) {
  const { t } = useTranslation();
  return (
    <div className={css.page}>
      <header className={css.head}>
        <ActionIcon component={Link} to="/settings" className={css.back} aria-label={t("settings.back")} size={40}>
          <ArrowLeft size={20} className="mirrored" />
        </ActionIcon>
        <div>
          <h2 className={css.title}>{title}</h2>
          <p className={css.intro}>{intro}</p>
        </div>
      </header>
      {children}
    </div>
  );
}
