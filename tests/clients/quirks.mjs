// What supabase-js does that a server has to know (rest.md 19): node quirks.mjs QUIRK URL ANON_KEY EMAIL PASSWORD
import { createClient, drive } from "./driver.mjs";

const [quirk, url, anon, email, password] = process.argv.slice(2);
const { db, say } = drive(url, anon);
const signedIn = await db.auth.signInWithPassword({ email, password });
const contacts = () => db.from("contacts");
const names = (query) => query.order("first_name");

/** What became of a subscription: the first status that is not the joining itself. */
const subscribed = (channel) => new Promise((done) => channel.subscribe((status, error) => done({ data: { status, error: error?.message ?? null } })));

const quirks = {
  "01": async () => {
    await say("insert", contacts().insert([{ first_name: "Mia", last_name: "Doe" }, { first_name: "Leo" }]).select("first_name,last_name"));
    const ids = (await contacts().select("id").order("first_name")).data.map((row) => row.id);
    await say("upsert", contacts().upsert(ids.map((id) => ({ id, job_title: "CEO" }))).select("first_name,job_title"));
  },
  "02": async () => {
    const { data } = await contacts().insert({ first_name: "Mia" }).select("id").single();
    await say("upsert", contacts().upsert({ id: data.id, first_name: "Mia2" }).select("first_name"));
    await say("counted", contacts().update({ job_title: "CEO" }, { count: "exact" }).eq("id", data.id).select("first_name"));
  },
  "03": async () => {
    await say("read", contacts().select("id"));
    await say("head", contacts().select("id", { head: true }));
    await say("write", contacts().insert({ first_name: "Mia" }));
    await say("call", db.rpc("inbox_counts"));
    await say("other", db.schema("auth").from("users").select());
    await say("other write", db.schema("auth").from("users").insert({ email: "a@example.test" }));
  },
  "05": async () => {
    for (let n = 0; n < 2; n += 1) await say(`read ${n}`, contacts().select("id"));
    await say("password", () => db.auth.signInWithPassword({ email, password: "wrong" }));
    await say("refresh", () => db.auth.refreshSession({ refresh_token: "nonsense1234" }));
  },
  "06": async () => {
    await contacts().insert([{ first_name: "Mia" }, { first_name: "Leo" }]);
    await say("counted", contacts().select("*", { count: "exact", head: true }));
    await say("not counted", contacts().select("*", { head: true }));
  },
  "07": async () => {
    await contacts().insert([{ first_name: "Mia" }]);
    await say("single", contacts().select("first_name").single());
    await say("maybeSingle", contacts().select("first_name").maybeSingle());
    await say("maybeSingle none", contacts().select("first_name").eq("first_name", "No").maybeSingle());
    await contacts().insert([{ first_name: "Leo" }]);
    await say("maybeSingle many", contacts().select("first_name").maybeSingle());
  },
  "08": async () => {
    const { data } = await contacts().insert({ first_name: "Mia" }).select("id").single();
    await db.from("deals").insert(["A", "B", "C"].map((title) => ({ title, contact_id: data.id })));
    await say("or", names(contacts().select("first_name,deals(title)").or("title.eq.A,title.eq.B", { referencedTable: "deals" })));
  },
  "09": async () => {
    await contacts().insert([{ first_name: "Mia", last_name: "Doe" }, { first_name: "Leo", last_name: null }, { first_name: "Zoe", last_name: null }]);
    await say("not in", names(contacts().select("first_name").not("first_name", "in", "(Mia,Leo)")));
    await say("not is", names(contacts().select("first_name").not("last_name", "is", null)));
  },
  "10": async () => {
    await contacts().insert([
      { first_name: "Mia", last_name: "Doe", tags: ["a", "b"], custom_fields: { k: "v" } },
      { first_name: "Leo", last_name: "Roe", tags: ["b"], custom_fields: {} },
    ]);
    await say("contains", names(contacts().select("first_name").contains("tags", ["a", "b"])));
    await say("contains object", names(contacts().select("first_name").contains("custom_fields", { k: "v" })));
    await say("overlaps", names(contacts().select("first_name").overlaps("tags", ["b", "x"])));
    await say("textSearch", names(contacts().select("first_name").textSearch("last_name", "doe", { type: "websearch", config: "english" })));
    await say("likeAnyOf", names(contacts().select("first_name").likeAnyOf("first_name", ["M%", "x%"])));
  },
  "11": async () => {
    const { data } = await contacts().insert([{ first_name: "Mia", last_name: "B" }, { first_name: "Leo", last_name: null }, { first_name: "Ann", last_name: "B" }]).select("id");
    await db.from("deals").insert(["A", "B"].map((title) => ({ title, contact_id: data[0].id })));
    await say("range", names(contacts().select("first_name")).range(0, 1));
    await say("order", contacts().select("first_name").order("last_name", { ascending: false, nullsFirst: false }).order("first_name"));
    await say("order embedded", contacts().select("deals(title)").eq("first_name", "Mia").order("title", { referencedTable: "deals", ascending: false }));
  },
  "12": async () => {
    await contacts().insert([{ first_name: "Mia", tags: ["a"] }]);
    await say("csv", contacts().select("first_name,tags").csv());
    await say("explain", contacts().select("first_name").explain({ analyze: true, format: "json" }));
  },
  "13": async () => {
    const { data } = await contacts().insert([{ first_name: "Mia" }, { first_name: "Leo" }]).select("id");
    await say("head", db.rpc("search_contacts", { search_term: "" }, { head: true, count: "exact" }));
    await say("head object", db.rpc("search_contacts", { search_term: { odd: 1 } }, { head: true, count: "exact" }));
    await say("get array", db.rpc("having_ids", { ids: data.map((row) => row.id) }, { get: true }));
  },
  "14": async () => {
    await contacts().insert([{ first_name: "Mia" }, { first_name: "Leo" }]);
    await say("too many", contacts().update({ job_title: "x" }).neq("first_name", "").maxAffected(1));
    await say("unchanged", contacts().select("job_title"));
    await say("enough", contacts().update({ job_title: "x" }).neq("first_name", "").maxAffected(2).select("job_title"));
  },
  15: async () => {
    const { access_token: token } = signedIn.data.session;
    await say("nonsense", db.auth.getUser("nonsense"));
    await say("anon", db.auth.getUser(anon));
    await say("fine", db.auth.getUser(token));
    await fetch(`${url}/auth/v1/logout?scope=global`, { method: "POST", headers: { apikey: anon, Authorization: `Bearer ${token}` } });
    await say("gone", db.auth.getUser(token));
  },
  18: async () => {
    const room = db.channel("room");
    await say("send", async () => ({ data: await room.send({ type: "broadcast", event: "e", payload: { n: 1 } }) }));
    await say("httpSend", async () => ({ data: await room.httpSend("e", { n: 1 }) }));
  },
  19: async () => {
    const room = db.channel("room");
    room.on("presence", { event: "sync" }, () => console.log(JSON.stringify({ name: "sync" })));
    await say("subscribe", () => subscribed(room));
    console.log(JSON.stringify({ name: "state", data: room.presenceState() }));
    await say("still reads", contacts().select("id"));
    await db.removeAllChannels();
    db.realtime.disconnect();
  },
  20: async () => {
    await say("listed", db.functions.invoke("list-organizations"));
    await say("posted", db.functions.invoke("insert-message", { body: { phone: "201001383533", content: "Hi", direction: "incoming", status: "received" } }));
    await say("refused", async () => {
      const { error } = await db.functions.invoke("insert-message", { body: { content: "Hi" } });
      return { data: { name: error.name, status: error.context.status, type: error.context.headers.get("Content-Type"), body: await error.context.json() } };
    });
  },
  21: async () => {
    const { data } = await db.auth.getSession();
    const newer = createClient(url, anon, {
      auth: { persistSession: false, autoRefreshToken: false },
      global: { headers: { Authorization: `Bearer ${data.session.access_token}`, "X-Client-Info": "supabase-js/99.0.0", "X-Supabase-Something-New": "1", "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" } },
    });
    await say("read", newer.from("contacts").select("id"));
    await say("call", newer.functions.invoke("list-organizations"));
  },
  24: async () => {
    const { data } = await contacts().insert({ first_name: "Mia" }).select().single();
    await fetch(`${url}/rest/v1/contacts?id=eq.${data.id}`, {
      method: "PATCH", body: '{"custom_fields": {"n": 9007199254740993}}',
      headers: { apikey: anon, Authorization: `Bearer ${signedIn.data.session.access_token}`, "Content-Type": "application/json" },
    });
    await say("number", contacts().select("custom_fields").eq("id", data.id).single());
    await say("text", contacts().select("n:custom_fields->>n").eq("id", data.id).single());
  },
  25: async () => {
    await say("none", contacts().select("id").single());
    await contacts().insert([{ first_name: "Mia" }, { first_name: "Leo" }]);
    await say("two", contacts().select("id").single());
  },
};
await quirks[quirk]();
process.exit(0);
