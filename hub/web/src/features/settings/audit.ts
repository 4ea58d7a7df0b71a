/** The audit log: pages of it, the whole as a file, and words for what it tells. */
import type { TFunction } from "i18next";
import type { AuditSearch } from "../../app/search";
import { refusal } from "../../api/http";
import { type AuditEntry, auditEntry } from "../../api/models";
import { rows } from "../../api/rest";
import { accessToken } from "../../api/session";
import type people from "../../i18n/people.en.json";
import { isRecord } from "../../lib/parse";

export const AUDIT_PAGE = 50;

/** Local days as moments: from the first one's beginning until the last one's end. */
export function momentsOf({ from, to }: AuditSearch): { after?: string; before?: string } {
  const midnight = (day: string, add: number): string | undefined => {
    const [year = 0, month = 1, date = 1] = day.split("-").map(Number);
    const at = new Date(year, month - 1, date + add);
    return Number.isNaN(at.getTime()) ? undefined : at.toISOString();
  };
  const after = from === undefined ? undefined : midnight(from, 0);
  const before = to === undefined ? undefined : midnight(to, 1);
  return { ...(after ? { after } : {}), ...(before ? { before } : {}) };
}

/** Newest first, below the row `below`. */
export function auditPage(search: AuditSearch, below: string | null, signal: AbortSignal): Promise<AuditEntry[]> {
  const { after, before } = momentsOf(search);
  const conditions = [
    ...(search.what ? [`action.like.${search.what}.*`] : []),
    ...(search.who ? [`actor_id.eq.${search.who}`] : []),
    ...(after ? [`at.gte.${after}`] : []),
    ...(before ? [`at.lt.${before}`] : []),
    ...(below ? [`id.lt.${below}`] : []),
  ];
  return rows(
    "audit_log", auditEntry,
    { order: "id.desc", limit: String(AUDIT_PAGE), ...(conditions.length ? { and: `(${conditions.join(",")})` } : {}) }, signal,
  );
}

/** The same, as long as it is, as a file. Throws ApiError. */
export async function auditFile(search: AuditSearch, format: "csv" | "json"): Promise<Blob> {
  const query = new URLSearchParams({
    format, ...momentsOf(search), ...(search.what ? { action: search.what } : {}), ...(search.who ? { actor_id: search.who } : {}),
  });
  const bearer = await accessToken();
  const response = await fetch(`/functions/v1/audit-log?${query.toString()}`, { headers: { Authorization: `Bearer ${bearer}` } });
  if (!response.ok) throw refusal(response.status, response.statusText, await response.text());
  return response.blob();
}

type Words = TFunction<"people">;

const actions: Record<keyof typeof people.action, true> = {
  member_joined: true, member_removed: true, member_deactivated: true, member_reactivated: true, member_role_changed: true,
  member_permissions_changed: true, member_updated: true, team_member_added: true, team_member_removed: true,
  invitation_sent: true, invitation_resent: true, invitation_accepted: true, invitation_revoked: true, invitation_refused: true,
  api_key_revoked: true, session_entered: true, access_refused: true, session_opened: true,
  email_changed: true, password_changed: true, user_banned: true, secrets_written: true,
};
const nouns: Record<keyof typeof people.noun, true> = {
  organization: true, member: true, team: true, invitation: true, api_key: true, subscription: true, channel_account: true,
  webhook: true, template: true, bot_flow: true, automation_rule: true, campaign: true, pipeline: true,
  custom_field_definition: true, sla_policy: true, business_hours: true, suppression: true, contacts: true, companies: true,
  deals: true, conversations: true, projects: true, milestones: true, tasks: true, notes: true, audit_log: true, session: true,
  access: true,
};
const actors: Record<keyof typeof people.actor, true> = {
  key: true, system: true, operator: true, anon: true, user: true, rule: true, flow: true, campaign: true, worker: true,
};

function isKey<T extends object>(words: T, key: string): key is Extract<keyof T, string> {
  return Object.hasOwn(words, key);
}

/** What a filter may ask for. */
export const NOUNS: readonly string[] = Object.keys(nouns);

export function nounLabel(t: Words, noun: string): string {
  return isKey(nouns, noun) ? t(`noun.${noun}`) : noun;
}

/** A deed in words; one that this version does not know as the log spells it. */
export function actionLabel(t: Words, action: string): string {
  const flat = action.replace(".", "_");
  if (isKey(actions, flat)) return t(`action.${flat}`);
  const [noun = "", verb = ""] = action.split(".");
  if (!isKey(nouns, noun)) return action;
  const blanks = { noun: t(`noun.${noun}`) };
  switch (verb) {
    case "created":
      return t("audit.created", blanks);
    case "updated":
      return t("audit.updated", blanks);
    case "deleted":
      return t("audit.deleted", blanks);
    case "exported":
      return t("audit.exported", blanks);
    default:
      return action;
  }
}

export function actorLabel(t: Words, kind: string): string {
  return isKey(actors, kind) ? t(`actor.${kind}`) : kind;
}

/** How the thing is called that the deed was done to, where the log knows it. */
export function targetName({ details }: Pick<AuditEntry, "details">): string | null {
  for (const image of [details["after"], details["before"], details]) {
    if (!isRecord(image)) continue;
    for (const name of ["name", "email", "what"]) {
      const value = image[name];
      if (typeof value === "string" && value !== "") return value;
    }
  }
  return null;
}

export interface Change {
  field: string;
  /** Undefined: there was, or is, none. */
  before: unknown;
  after: unknown;
}

/** Field by field, in alphabetical order; what is neither before nor after stands as what is. */
export function changesOf({ details }: Pick<AuditEntry, "details">): Change[] {
  const before = isRecord(details["before"]) ? details["before"] : {};
  const after = isRecord(details["after"]) ? details["after"] : {};
  const rest = Object.entries(details).filter(([name]) => name !== "before" && name !== "after");
  return [
    ...[...new Set([...Object.keys(before), ...Object.keys(after)])]
      .sort()
      .map((field) => ({ field, before: before[field], after: after[field] })),
    ...rest.map(([field, value]) => ({ field, before: undefined, after: value })),
  ];
}

export function valueText(value: unknown): string {
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "");
}
