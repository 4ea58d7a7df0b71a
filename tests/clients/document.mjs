// The rows of the API document, as the Postman collection has them, made, read, changed and removed with supabase-js.
// node document.mjs URL ANON_KEY ACCESS_TOKEN ORGANIZATION_ID COLLECTION
import { readFileSync } from "node:fs";
import { drive } from "./driver.mjs";

const [url, anon, token, organization, collection] = process.argv.slice(2);
const { db, say } = drive(url, anon, { accessToken: async () => token });
const known = { organization_id: organization };
const body = (item) => JSON.parse(item.request.body.raw.replaceAll(/\{\{(\w+)\}\}/g, (mark, name) => known[name] ?? mark));
const table = (item) => item.request.url.path.at(-1);
const made = [];

for (const folder of JSON.parse(readFileSync(collection, "utf8")).item.filter((one) => one.name.startsWith("REST API"))) {
  for (const item of folder.item.filter((one) => one.name.startsWith("Create ") && !one.name.endsWith("(to delete)"))) {
    const name = table(item);
    const change = folder.item.find((one) => one.request.method === "PATCH" && table(one) === name);
    const row = await say(`${name} insert`, db.from(name).insert(body(item)).select().single());
    const variable = /collectionVariables\.set\("(\w+)"/.exec(item.event.map((event) => event.script.exec.join("\n")).join("\n"))[1];
    known[variable] = row.id;
    await say(`${name} select`, db.from(name).select("*", { count: "exact" }).eq("id", row.id).eq("organization_id", organization).order("created_at", { ascending: false }).limit(1));
    if (change) await say(`${name} update`, db.from(name).update(body(change)).eq("id", row.id).select().single());
    made.unshift([name, row.id]);
  }
}
for (const [name, id] of made) await say(`${name} delete`, db.from(name).delete({ count: "exact" }).eq("id", id).select("id"));
console.log(JSON.stringify({ name: "tables", made: made.map(([name]) => name) }));
