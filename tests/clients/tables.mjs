// Drives a running hub through every method of supabase-js' query builders; prints one JSON line a call.
// node tables.mjs URL ANON_KEY ACCESS_TOKEN ORGANIZATION_ID
import { drive, watchBuilders } from "./driver.mjs";

const [url, anon, token, organization] = process.argv.slice(2);
const { db, say } = drive(url, anon, { accessToken: async () => token });
const builders = watchBuilders(db);

const contacts = () => db.from("contacts");
const deals = () => db.from("deals");

// writes
const people = await say(
  "insert many",
  contacts().insert([
    { organization_id: organization, first_name: "Mia", last_name: "Doe, M", tags: ["vip", "a b"], custom_fields: { n: 1, deep: { k: "v" } } },
    { organization_id: organization, first_name: "Leo", last_name: "Roe", tags: ["new"], custom_fields: { n: 2 } },
    { organization_id: organization, first_name: "Zoe", last_name: null, tags: [], custom_fields: {} },
  ]).select("id,first_name"),
);
const [mia, leo, zoe] = people.map((row) => row.id);
await say("insert minimal", db.from("companies").insert({ name: "Blue Ltd" }));
await say("insert single", db.from("companies").insert({ name: "Red Ltd" }).select().single());
await say("insert count", db.from("companies").insert([{ name: "Green" }], { count: "exact" }));
await say("insert defaultToNull false", contacts().insert([{ first_name: "D" }], { defaultToNull: false }).select("tags"));
await say("upsert", contacts().upsert({ id: mia, first_name: "Mia" }).select("first_name"));
await say("upsert ignore", contacts().upsert([{ id: mia, first_name: "No" }], { ignoreDuplicates: true }).select());
await say("upsert onConflict", contacts().upsert([{ id: leo, first_name: "Leo" }], { onConflict: "id" }).select("first_name"));
await say("update", contacts().update({ job_title: "CEO" }).eq("id", mia).select("job_title"));
await say("update count", contacts().update({ job_title: "CTO" }, { count: "exact" }).in("id", [leo, zoe]));
await say("update nothing found", contacts().update({ job_title: "x" }).eq("first_name", "Nobody").select());
await say("update without filter", contacts().update({ job_title: "x" }));
await say("deals", deals().insert([
  { title: "D1", contact_id: mia, value: 10.5 }, { title: "D2", contact_id: mia, value: 20 }, { title: "D3" },
]).select("title"));

// filters
const first = (query) => query.order("first_name").then((got) => ({ ...got, data: got.data?.map((row) => row.first_name).join("") ?? got.data }));
const named = () => contacts().select("first_name").neq("first_name", "D");
await say("eq", first(named().eq("first_name", "Mia")));
await say("neq", first(named().neq("first_name", "Mia")));
await say("gt gte lt lte", first(named().gt("first_name", "A").gte("first_name", "Leo").lt("first_name", "Z").lte("first_name", "Mia")));
await say("like", first(named().like("first_name", "%ia")));
await say("ilike", first(named().ilike("first_name", "*IA")));
await say("likeAllOf", first(named().likeAllOf("first_name", ["M*", "*a"])));
await say("likeAnyOf", first(named().likeAnyOf("first_name", ["M*", "L*"])));
await say("ilikeAllOf", first(named().ilikeAllOf("first_name", ["m*", "*A"])));
await say("ilikeAnyOf", first(named().ilikeAnyOf("first_name", ["m*", "l*"])));
await say("regexMatch", first(named().regexMatch("first_name", "^[ML]")));
await say("regexIMatch", first(named().regexIMatch("first_name", "^m")));
await say("is", first(named().is("last_name", null)));
await say("isDistinct", first(named().isDistinct("last_name", "Roe")));
await say("in", first(named().in("last_name", ["Doe, M", "Roe"])));
await say("notIn", first(named().notIn("first_name", ["Mia", "Leo"])));
await say("contains array", first(named().contains("tags", ["a b"])));
await say("contains json", first(named().contains("custom_fields", { deep: { k: "v" } })));
await say("containedBy", first(named().containedBy("tags", ["vip", "a b", "new"])));
await say("overlaps", first(named().overlaps("tags", ["new", "x"])));
await say("textSearch", first(named().textSearch("last_name", "doe", { type: "websearch", config: "english" })));
await say("textSearch plain", first(named().textSearch("last_name", "roe", { type: "plain" })));
await say("textSearch phrase", first(named().textSearch("last_name", "doe m", { type: "phrase" })));
await say("match", first(named().match({ first_name: "Mia", job_title: "CEO" })));
await say("not", first(named().not("first_name", "in", "(Mia,Leo)")));
await say("not is", first(named().not("last_name", "is", null)));
await say("or", first(named().or("first_name.eq.Mia,and(first_name.eq.Leo,tags.cs.{new})")));
await say("or embedded", contacts().select("first_name,deals(title)").eq("first_name", "Mia").or("title.eq.D1,title.eq.x", { referencedTable: "deals" }));
await say("filter", first(named().filter("custom_fields->n", "gt", 1)));
await say("json path", first(named().eq("custom_fields->deep->>k", "v")));
await say("rangeGt on text", contacts().select().rangeGt("first_name", "[a,b)"));

// shape of the answer
await say("order", contacts().select("first_name").neq("first_name", "D").order("last_name", { ascending: false, nullsFirst: false }).order("first_name"));
await say("limit", contacts().select("first_name").order("first_name").limit(1));
await say("range", contacts().select("first_name").neq("first_name", "D").order("first_name").range(1, 2));
await say("single", contacts().select("first_name").eq("id", mia).single());
await say("single of many", contacts().select("first_name").single());
await say("maybeSingle", contacts().select("first_name").eq("first_name", "Nobody").maybeSingle());
await say("csv", contacts().select("first_name,tags").eq("id", mia).csv());
await say("count", contacts().select("*", { count: "exact", head: true }));
await say("count planned", contacts().select("id", { count: "planned" }).limit(1));
await say("count estimated", contacts().select("id", { count: "estimated" }).limit(1));
await say("beyond the end", contacts().select("id", { count: "exact" }).range(100, 110));
await say("explain", contacts().select().explain());
await say("geojson", contacts().select().geojson());
await say("stripNulls", contacts().select("first_name,avatar_url").eq("id", mia).stripNulls());
await say("embed", deals().select("title,contacts!inner(first_name)").eq("contacts.first_name", "Mia").order("title"));
await say("embed order limit", contacts().select("first_name,deals(title)").eq("id", mia)
  .order("title", { referencedTable: "deals", ascending: false }).limit(1, { referencedTable: "deals" }));
await say("embed by constraint", deals().select("title,profiles!deals_owner_id_fkey(first_name)").eq("title", "D1").single());
await say("aggregate", deals().select("contact_id,value.sum(),count()").not("contact_id", "is", null));
await say("spread", deals().select("title,...contacts(who:first_name)").eq("title", "D1"));
await say("rollback", contacts().insert({ first_name: "R" }).select("first_name").rollback());
await say("maxAffected", contacts().delete().neq("first_name", "").maxAffected(1));
await say("schema", db.schema("public").from("contacts").select("id").limit(1));
await say("other schema", db.schema("auth").from("users").select());
await say("unknown table", db.from("nope").select());
await say("unknown column", contacts().select("nope"));
await say("retry off", contacts().select("id").limit(1).retry(false));
await say("returns", contacts().select("first_name").eq("id", mia).returns());
await say("overrideTypes", contacts().select("first_name").eq("id", mia).overrideTypes());
await say("getOpenApiSpec", db.getOpenApiSpec().then((got) => ({ ...got, data: got.data && Object.keys(got.data.definitions).length > 30 })));
await say("throwOnError", contacts().select("nope").throwOnError());
await say("abortSignal", contacts().select("first_name").eq("id", mia).abortSignal(new AbortController().signal));
await say("setHeader", contacts().select("first_name").eq("id", mia).setHeader("X-Request-Id", "from-supabase-js"));

// functions
await say("rpc", db.rpc("current_organization_id"));
await say("rpc rows", db.rpc("search_contacts", { search_term: "mia" }).select("first_name"));
await say("rpc get", db.rpc("search_contacts", { search_term: "mia" }, { get: true, count: "exact" }).select("first_name"));
await say("rpc head", db.rpc("search_contacts", { search_term: "" }, { head: true, count: "exact" }));
await say("rpc one", db.rpc("add_contact_tag", { contact_id: zoe, tag: "x" }).select("tags").single());
// The product's tables have no ranges; a function of an operator's own may (test_rest_supabase_js.py makes it).
const shifts = (narrow) => narrow(db.rpc("shifts").select("name")).order("name")
  .then((got) => ({ ...got, data: got.data?.map((row) => row.name).join(" ") ?? got.data }));
await say("rangeGt", shifts((query) => query.rangeGt("hours", "[6,14)")));
await say("rangeGte", shifts((query) => query.rangeGte("hours", "[14,22)")));
await say("rangeLt", shifts((query) => query.rangeLt("hours", "[14,22)")));
await say("rangeLte", shifts((query) => query.rangeLte("hours", "[14,22)")));
await say("rangeAdjacent", shifts((query) => query.rangeAdjacent("hours", "[14,22)")));
await say("overlaps range", shifts((query) => query.overlaps("hours", "[13,15)")));
await say("contains range", shifts((query) => query.contains("hours", "[23,24)")));
await say("containedBy range", shifts((query) => query.containedBy("hours", "[0,22)")));
await say("rpc unknown", db.rpc("nope", { a: 1 }));

// deletes
await say("delete", contacts().delete().eq("id", zoe).select("first_name"));
await say("delete count", contacts().delete({ count: "exact" }).in("id", [leo]));
await say("delete without filter", contacts().delete());

console.log(JSON.stringify({ name: "methods", ...builders() }));
