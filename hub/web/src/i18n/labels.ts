/** Words for states that the API spells in capitals. */
import type { TFunction } from "i18next";
import type en from "./en.json";

function isKey<T extends object>(words: T, key: string): key is Extract<keyof T, string> {
  return Object.hasOwn(words, key);
}

const channels: Record<keyof typeof en.channel, true> = {
  WHATSAPP_LITE: true, WHATSAPP_CLOUD: true, WHATSAPP_BUSINESS: true, FB_MESSENGER: true, INSTAGRAM: true,
  TELEGRAM: true, TIKTOK: true, EMAIL: true, SMS: true, SHRINKIT_PUSH: true, unknown: true,
};
const schemes: Record<keyof typeof en.scheme, true> = {
  wa_id: true, wa_bsuid: true, psid: true, igsid: true, tg_user: true, tt_user: true, email: true, phone_e164: true,
  appgain_user: true,
};
const roles: Record<keyof typeof en.role, true> = { OWNER: true, ADMIN: true, AGENT: true };
const permissions: Record<keyof typeof en.permission, true> = {
  can_access_crm: true, can_access_pm: true, can_send_messages: true, can_read_messages: true, can_manage_team: true,
  can_manage_settings: true,
};

const kinds: Record<keyof typeof en.kind, true> = {
  image: true, video: true, audio: true, document: true, sticker: true, location: true, contact: true, contacts: true,
  template: true, interactive: true, unsupported: true, other: true,
};

/** What a message without words is. */
export function kindLabel(t: TFunction, type: string): string {
  return t(isKey(kinds, type) ? `kind.${type}` : "kind.other");
}

/** A conversation's last line. Messages without words have only their kind there. */
export function previewOf(t: TFunction, preview: string | null): string {
  if (preview === "[deleted]") return t("bubble.deleted");
  const kind = /^\[([a-z_]+)\]$/.exec(preview ?? "")?.[1];
  if (kind !== undefined && isKey(kinds, kind)) return t(`kind.${kind}`);
  return preview === null || preview === "" ? t("list.noText") : preview;
}

export function channelLabel(t: TFunction, type: string | undefined): string {
  return type !== undefined && isKey(channels, type) ? t(`channel.${type}`) : (type ?? t("channel.unknown"));
}

export function schemeLabel(t: TFunction, scheme: string): string {
  return isKey(schemes, scheme) ? t(`scheme.${scheme}`) : scheme;
}

export function roleLabel(t: TFunction, role: string): string {
  return isKey(roles, role) ? t(`role.${role}`) : role;
}

export function permissionLabel(t: TFunction, name: string): string {
  return isKey(permissions, name) ? t(`permission.${name}`) : name;
}
