/** Quick replies: what stands after `/`, which replies match it, what they say for this customer. Pure. */
import type { Contact, Template } from "../../api/models";
import { fullName } from "../../lib/people";
import { fillPlaceholders } from "../../lib/placeholders";
import { matches } from "../../lib/text";

export interface QuickReply {
  id: string;
  name: string;
  /** As it would be inserted now. */
  text: string;
}

export interface Slash {
  /** Where the `/` stands. */
  start: number;
  query: string;
}

/** The `/word` that ends at the caret, at the start of the text or after a space. */
export function slashAt(text: string, caret: number): Slash | null {
  const found = /(?:^|\s)\/([^\s/]*)$/u.exec(text.slice(0, caret));
  return found ? { start: caret - (found[1] ?? "").length - 1, query: found[1] ?? "" } : null;
}

export function bodyOf(template: Template): string {
  const body = template.components.find((part) => part["type"] === "BODY");
  return typeof body?.["text"] === "string" ? body["text"] : "";
}

/** Values of `{{name}}` and its relatives; what is not known is not in it. */
export function valuesFor(contact: Contact | undefined, agent: string): Map<string, string> {
  const values = new Map<string, string>();
  const put = (name: string, value: string | null | undefined) => {
    if (value) values.set(name, value);
  };
  for (const [name, value] of Object.entries(contact?.custom_fields ?? {})) {
    if (typeof value === "string" || typeof value === "number") put(name.toLowerCase(), String(value));
  }
  if (contact) {
    put("name", contact.first_name ?? fullName(contact));
    put("first_name", contact.first_name);
    put("last_name", contact.last_name);
    put("full_name", fullName(contact));
    put("phone", contact.phones[0]);
    put("email", contact.emails[0]);
    put("city", contact.city);
    put("country", contact.country);
  }
  put("agent", agent);
  put("agent_name", agent);
  return values;
}

export function quickReplies(
  templates: readonly Template[], query: string, values: ReadonlyMap<string, string>,
): QuickReply[] {
  return templates
    .map((one) => ({ id: one.id, name: one.name, text: fillPlaceholders(bodyOf(one), values) }))
    .filter((one) => one.text !== "" && matches(`${one.name} ${one.text}`, query));
}
