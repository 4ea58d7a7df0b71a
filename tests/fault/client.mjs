// Live sessions with the web app's own socket and reducer, told by lines on stdin, answering in lines on stdout:
//   {"do":"start","name","url","rest","token","me","canary"} · {"do":"state","name"} · {"do":"cursors"} · {"do":"stop"}
import { registerHooks } from "node:module";
import { createInterface } from "node:readline";

// The app's modules name each other without an ending, as its bundler allows.
registerHooks({
  resolve(specifier, context, next) {
    try {
      return next(specifier, context);
    } catch (error) {
      if (!specifier.startsWith(".") || error.code !== "ERR_MODULE_NOT_FOUND") throw error;
      return next(`${specifier}.ts`, context);
    }
  },
});
// What a browser has and Node has not.
Object.defineProperty(globalThis, "navigator", { value: { onLine: true } });
globalThis.document = { visibilityState: "visible", addEventListener() {}, removeEventListener() {} };
globalThis.addEventListener = () => {};
globalThis.removeEventListener = () => {};

const src = new URL("../../hub/web/src/", import.meta.url);
const reducer = await import(new URL("realtime/reducer.ts", src));
const { LiveSocket } = await import(new URL("realtime/socket.ts", src));
const models = await import(new URL("api/models.ts", src));

const PAGE = 1000;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

class Session {
  constructor(order) {
    Object.assign(this, order);
    this.cursor = null;
    this.inbox = reducer.emptyInbox;
    this.applied = 0;
    this.last = null;
    this.welcomes = { resumed: 0, fresh: 0 };
    this.wrong = [];
    this.reading = 0; // snapshots and single reads under way
    this.generation = 0;
    this.closed = false;
    this.opened = new Set();
    this.socket = new LiveSocket(this.url, {
      token: async () => this.token,
      dropToken: () => this.wrong.push("the token was refused"),
      signedOut: () => false,
      cursor: () => this.cursor,
      forgetCursor: () => (this.cursor = null),
      onFrame: (frame) => this.take(frame),
      onPhase: (phase) => {
        if (phase.name === "refused") this.wrong.push(`refused with ${phase.code}`);
      },
    });
  }

  start() {
    this.socket.start();
  }

  stop() {
    this.closed = true;
    this.socket.stop();
  }

  take(frame) {
    for (const [mark] of JSON.stringify(frame).matchAll(/canary\d\dx/g)) {
      if (mark !== this.canary) this.wrong.push(`saw ${mark}`);
    }
    const step = reducer.follow(this.cursor, frame);
    this.cursor = step.cursor;
    if (frame.type === "welcome") this.welcomes[frame.resumed ? "resumed" : "fresh"] += 1;
    if (step.resync) {
      this.last = this.cursor.seq;
      this.inbox = reducer.beginResync(this.inbox);
      this.opened.clear();
      void this.snapshot();
    }
    if (step.deliver) {
      if (this.last !== null && this.cursor.seq <= this.last) this.wrong.push(`${this.cursor.seq} after ${this.last}`);
      this.last = this.cursor.seq;
      this.applied += 1;
      const { inbox, wants } = reducer.applyEvents(this.inbox, [step.deliver], this.me);
      this.inbox = inbox;
      void this.want(wants);
      this.openNew();
    }
  }

  async rows(table, query) {
    for (;;) {
      if (this.closed) return [];
      try {
        const answer = await fetch(`${this.rest}/rest/v1/${table}?${query}`, {
          headers: { Authorization: `Bearer ${this.token}` },
        });
        if (answer.ok) return await answer.json();
        await answer.text();
        if (answer.status < 500 && answer.status !== 429) throw new Error(`${table}: ${answer.status}`);
        if (answer.status === 500) this.wrong.push(`500 from ${table}`);
      } catch (error) {
        if (!(error instanceof TypeError)) {
          this.wrong.push(String(error));
          return [];
        }
      }
      await sleep(200);
    }
  }

  async all(table, filter = "") {
    const found = [];
    for (;;) {
      const after = found.length ? `&id=gt.${found.at(-1).id}` : "";
      const page = await this.rows(table, `order=id.asc&limit=${PAGE}${after}${filter}`);
      found.push(...page);
      if (page.length < PAGE) return found;
    }
  }

  async snapshot() {
    const mine = (this.generation += 1);
    this.reading += 1;
    const conversations = (await this.all("conversations")).map((row) => models.conversation(row, "row"));
    const contacts = (await this.all("contacts")).map((row) => models.contact(row, "row"));
    if (mine === this.generation) {
      this.inbox = reducer.takeContacts(reducer.takeConversations(this.inbox, conversations, true), contacts);
      for (const row of conversations) await this.openThread(row.id, true);
      this.openNew();
    }
    this.reading -= 1;
  }

  openNew() {
    for (const id of this.inbox.conversations.keys()) if (!this.opened.has(id)) void this.openThread(id, false);
  }

  async openThread(id, replace) {
    if (this.opened.has(id)) return;
    this.opened.add(id);
    const mine = this.generation;
    this.reading += 1;
    this.inbox = reducer.openThread(this.inbox, id);
    const page = (await this.all("messages", `&conversation_id=eq.${id}`)).map((row) => models.message(row, "row"));
    if (mine === this.generation) this.inbox = reducer.takeThread(this.inbox, id, page, true, replace);
    this.reading -= 1;
  }

  async want(wants) {
    const put = {
      conversations: (rows) => (this.inbox = reducer.takeConversations(this.inbox, rows, false)),
      contacts: (rows) => (this.inbox = reducer.takeContacts(this.inbox, rows)),
      messages: (rows) => (this.inbox = reducer.takeMessages(this.inbox, rows)),
    };
    const parse = { conversations: models.conversation, contacts: models.contact, messages: models.message };
    for (const table of Object.keys(put)) {
      if (!wants[table].size) continue;
      this.reading += 1;
      const found = await this.rows(table, `id=in.(${[...wants[table]].join(",")})`);
      put[table](found.map((row) => parse[table](row, "row")));
      this.reading -= 1;
    }
    this.openNew();
  }

  state() {
    const { conversations, contacts, threads } = this.inbox;
    const messages = [...threads.values()].flatMap((thread) => thread.messages);
    return {
      name: this.name, applied: this.applied, wrong: this.wrong, welcomes: this.welcomes,
      conversations: [...conversations.values()].map((row) => [row.id, row.version, row.status, row.msg_seq]),
      contacts: [...contacts.values()].map((row) => [row.id, row.version]),
      messages: messages.map((row) => [row.id, row.version, row.status, row.content, row.conv_seq]),
    };
  }
}

const sessions = new Map();
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  if (order.do === "start") {
    const session = new Session(order);
    sessions.set(order.name, session);
    session.start();
  } else if (order.do === "cursors") {
    say([...sessions.values()].map((s) => [s.name, s.cursor?.seq ?? -1, s.reading, s.wrong.length]));
  } else if (order.do === "state") {
    say(sessions.get(order.name).state());
  } else if (order.do === "stop") {
    for (const session of sessions.values()) session.stop();
    process.exit(0);
  }
}
