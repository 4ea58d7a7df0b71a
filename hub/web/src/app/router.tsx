/** Addresses. Every page is fetched when it is first wanted. */
import {
  createRootRoute, createRoute, createRouter, lazyRouteComponent, redirect, Outlet,
} from "@tanstack/react-router";
import { resume, useSession } from "../api/session";
import { auditSearch, inboxSearch } from "./search";
import { Shell } from "./Shell";
import { HubAway, NotFound, PageError } from "./Fallbacks";

const root = createRootRoute({ component: Outlet, notFoundComponent: NotFound, errorComponent: PageError });

/** Who is signed in is asked once, with the cookie; a hub that is away is not an answer. */
async function known(): Promise<ReturnType<typeof useSession.getState>> {
  if (useSession.getState().status === "unknown") await resume();
  return useSession.getState();
}

const signIn = createRoute({
  getParentRoute: () => root,
  path: "/sign-in",
  validateSearch: (search: Record<string, unknown>): { next?: string } => {
    const next = search["next"];
    // Only paths of this app: `//host` and `/\host` would lead elsewhere.
    return typeof next === "string" && /^\/(?![/\\])/.test(next) ? { next } : {};
  },
  beforeLoad: async ({ search }) => {
    if ((await known()).status === "signed-in") throw redirect({ href: search.next ?? "/inbox" });
  },
  component: lazyRouteComponent(() => import("../features/session/SignInPage"), "SignInPage"),
});

/** Its link comes by mail; whoever is signed in already joins with what they have. */
const invitation = createRoute({
  getParentRoute: () => root,
  path: "/invitation",
  beforeLoad: async () => {
    if ((await known()).status === "unknown") throw new HubAway();
  },
  component: lazyRouteComponent(() => import("../features/session/InvitationPage"), "InvitationPage"),
});

const forgot = createRoute({
  getParentRoute: () => root,
  path: "/forgot",
  component: lazyRouteComponent(() => import("../features/session/ForgotPage"), "ForgotPage"),
});

/** Where the links of mails about accounts lead. */
const confirm = createRoute({
  getParentRoute: () => root,
  path: "/confirm",
  component: lazyRouteComponent(() => import("../features/session/ConfirmPage"), "ConfirmPage"),
});

const shell = createRoute({
  getParentRoute: () => root,
  id: "shell",
  beforeLoad: async ({ location }) => {
    const { status } = await known();
    if (status === "unknown") throw new HubAway();
    if (status !== "signed-in") {
      throw redirect({ to: "/sign-in", search: location.pathname === "/" ? {} : { next: location.href } });
    }
  },
  component: Shell,
});

const home = createRoute({
  getParentRoute: () => shell,
  path: "/",
  beforeLoad: () => {
    throw redirect({ to: "/inbox" });
  },
});

const inbox = createRoute({
  getParentRoute: () => shell,
  path: "/inbox",
  validateSearch: inboxSearch,
  component: lazyRouteComponent(() => import("../features/inbox/InboxPage"), "InboxPage"),
});
const inboxNone = createRoute({ getParentRoute: () => inbox, path: "/" });
const inboxOne = createRoute({ getParentRoute: () => inbox, path: "$conversationId" });

const settings = createRoute({
  getParentRoute: () => shell,
  path: "/settings",
  component: lazyRouteComponent(() => import("../features/settings/SettingsFrame"), "SettingsFrame"),
});
const settingsHome = createRoute({
  getParentRoute: () => settings,
  path: "/",
  component: lazyRouteComponent(() => import("../features/settings/SettingsHome"), "SettingsHome"),
});
const settingsPages = [
  createRoute({
    getParentRoute: () => settings,
    path: "profile",
    component: lazyRouteComponent(() => import("../features/settings/ProfilePage"), "ProfilePage"),
  }),
  createRoute({
    getParentRoute: () => settings,
    path: "security",
    component: lazyRouteComponent(() => import("../features/settings/SecurityPage"), "SecurityPage"),
  }),
  createRoute({
    getParentRoute: () => settings,
    path: "appearance",
    component: lazyRouteComponent(() => import("../features/settings/AppearancePage"), "AppearancePage"),
  }),
  createRoute({
    getParentRoute: () => settings,
    path: "shortcuts",
    component: lazyRouteComponent(() => import("../features/settings/ShortcutsPage"), "ShortcutsPage"),
  }),
  createRoute({
    getParentRoute: () => settings,
    path: "channels",
    component: lazyRouteComponent(() => import("../features/settings/ChannelsPage"), "ChannelsPage"),
  }),
  createRoute({
    getParentRoute: () => settings,
    path: "team",
    component: lazyRouteComponent(() => import("../features/settings/TeamPage"), "TeamPage"),
  }),
  createRoute({
    getParentRoute: () => settings,
    path: "organizations",
    component: lazyRouteComponent(() => import("../features/settings/OrganizationsPage"), "OrganizationsPage"),
  }),
  createRoute({
    getParentRoute: () => settings,
    path: "audit",
    validateSearch: auditSearch,
    component: lazyRouteComponent(() => import("../features/settings/AuditPage"), "AuditPage"),
  }),
  createRoute({
    getParentRoute: () => settings,
    path: "api",
    component: lazyRouteComponent(() => import("../features/settings/ApiPage"), "ApiPage"),
  }),
] as const;

export const router = createRouter({
  routeTree: root.addChildren([
    signIn,
    invitation,
    forgot,
    confirm,
    shell.addChildren([
      home,
      inbox.addChildren([inboxNone, inboxOne]),
      settings.addChildren([settingsHome, ...settingsPages]),
    ]),
  ]),
  defaultErrorComponent: PageError,
  defaultPendingMs: 150,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
