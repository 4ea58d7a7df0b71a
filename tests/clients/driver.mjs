// supabase-js against a running hub, recording what it sends and which of its builders' methods were called.
import { createRequire } from "node:module";

const require = createRequire(new URL("../../hub/web/package.json", import.meta.url));
export const { createClient } = require("@supabase/supabase-js");

/** A client, and `say(name, call)`, which prints one JSON line: what came back and what was sent for it. Builders wait for
 * `await`; what starts at once has to come as a function. */
export function drive(url, key, options = {}) {
  let sent = [];
  const db = createClient(url, key, {
    ...options,
    auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false, ...options.auth },
    global: {
      fetch: (address, init = {}) => {
        const query = new URL(address).search.slice(1);
        sent.push({ method: init.method ?? "GET", path: new URL(address).pathname, query: decodeURIComponent(query.replaceAll("+", " ")), headers: Object.fromEntries(new Headers(init.headers)) });
        return fetch(address, init);
      },
    },
  });
  const say = async (name, call) => {
    sent = [];
    let answer;
    try {
      const { data, error, count, status } = await (typeof call === "function" ? call() : call);
      answer = { data, error: error && { ...error, name: error.name, message: error.message }, count, status };
    } catch (thrown) {
      answer = { thrown: String(thrown?.message ?? thrown) };
    }
    console.log(JSON.stringify({ name, ...answer, sent }));
    return answer.data ?? null;
  };
  return { db, say };
}

/** Counts calls of every method of the query builders from here on; the returned function says what there is. */
export function watchBuilders(db) {
  const all = new Set();
  const called = new Set();
  const table = db.from("contacts");
  for (const thing of [db.schema("public"), table, table.select(), db.rpc("f")]) {
    for (let proto = Object.getPrototypeOf(thing); proto !== Object.prototype; proto = Object.getPrototypeOf(proto)) {
      for (const name of Object.getOwnPropertyNames(proto)) {
        const method = proto[name];
        if (name === "constructor" || typeof method !== "function" || method.watched) continue;
        all.add(name);
        proto[name] = function (...args) {
          called.add(name);
          return method.apply(this, args);
        };
        proto[name].watched = true;
      }
    }
  }
  return () => ({ all: [...all].sort(), uncalled: [...all].filter((name) => !called.has(name)).sort() });
}
