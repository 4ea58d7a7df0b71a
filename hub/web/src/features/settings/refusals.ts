/** Refusals about members, invitations and organizations in the reader's language. */
import i18n from "i18next";
import { explain } from "../../app/deeds";
import { ApiError } from "../../api/http";
import "../../i18n/people";
import type people from "../../i18n/people.en.json";

const spoken: Readonly<Record<string, keyof typeof people.refusal>> = {
  "The last owner cannot leave or step down": "lastOwner",
  "You cannot change your own permissions": "ownPermissions",
  "You cannot give or change a role above your own": "aboveOwn",
  "You cannot invite to a role above your own": "aboveOwn",
  "You cannot give a permission that you lack": "lacking",
  "This address is a member already": "memberAlready",
  "This address has an invitation that stands": "invitedAlready",
  "This invitation was accepted or revoked": "settled",
  "This invitation was sent less than a minute ago": "tooSoon",
  "Invalid email format": "address",
};

/** A refusal in the reader's language; the hub says it in English. */
export function spokenRefusal(error: unknown): string {
  if (error instanceof ApiError) {
    const text = error.message.startsWith("You cannot give a permission that you do not hold")
      ? "You cannot give a permission that you lack"
      : error.message;
    const key = Object.hasOwn(spoken, text) ? spoken[text] : undefined;
    if (key !== undefined) return i18n.t(`refusal.${key}`, { ns: "people" });
  }
  return explain(error);
}
