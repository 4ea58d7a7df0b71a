/** What to call people of whom only some facts are known. */

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
