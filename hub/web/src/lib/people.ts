/** What to call people of whom only some facts are known. */
import { fold } from "./text";

interface Named {
  first_name: string | null;
  last_name: string | null;
}

export function fullName(person: Named): string {
  return [person.first_name, person.last_name].filter(Boolean).join(" ").trim();
}

/** A contact's name, else a phone or an address to call them by, else `fallback`. */
export function contactName(
  person: (Named & { phones: string[]; emails: string[] }) | undefined, fallback: string,
): string {
  if (!person) return fallback;
  return fullName(person) || person.phones[0] || person.emails[0] || fallback;
}

export function colleagueName(person: (Named & { email: string | null }) | undefined, fallback: string): string {
  if (!person) return fallback;
  return fullName(person) || person.email || fallback;
}

const folded = new WeakMap<object, string>();

/** What a contact is found by, folded. Kept with the contact: a search looks at all of them. */
export function searchText(person: Named & { phones: string[]; emails: string[] }): string {
  const known = folded.get(person);
  if (known !== undefined) return known;
  const made = fold([contactName(person, ""), ...person.phones, ...person.emails].join(" "));
  folded.set(person, made);
  return made;
}
