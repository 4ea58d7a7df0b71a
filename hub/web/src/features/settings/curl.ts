/** The API's first calls as a terminal takes them. Pure. */

export interface Curls {
  signIn: string;
  list: string;
  events: string;
  insert: string;
}

/** Text inside single quotes of a POSIX shell. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** `apiKey` is one that was just made, and is still known. */
export function curls(url: string, anonKey: string, email: string, apiKey: string | null = null): Curls {
  const key = `-H ${quoted(`apikey: ${anonKey}`)}`;
  const bearer = '-H "Authorization: Bearer $TOKEN"';
  const body = JSON.stringify({ email: email || "you@example.com", password: "YOUR_PASSWORD" });
  const message = JSON.stringify({
    phone: "201001383533", content: "Hello from my program", direction: "incoming", status: "received",
  });
  return {
    signIn: [
      `TOKEN=$(curl -s ${quoted(`${url}/auth/v1/token?grant_type=password`)} \\`,
      `  ${key} -H 'Content-Type: application/json' \\`,
      `  -d ${quoted(body)} | python3 -c 'import json,sys; print(json.load(sys.stdin)["access_token"])')`,
    ].join("\n"),
    list: [
      `curl -s ${quoted(`${url}/rest/v1/conversations?status=eq.OPEN&order=last_message_at.desc&limit=5`)} \\`,
      `  ${key} ${bearer}`,
    ].join("\n"),
    events: [`curl -s ${quoted(`${url}/functions/v1/events?after=0`)} \\`, `  ${key} ${bearer}`].join("\n"),
    insert: [
      `curl -s -X POST ${quoted(`${url}/functions/v1/insert-message`)} \\`,
      `  -H ${quoted(`X-API-Key: ${apiKey ?? "YOUR_KEY"}`)} -H 'Content-Type: application/json' \\`,
      `  -d ${quoted(message)}`,
    ].join("\n"),
  };
}
