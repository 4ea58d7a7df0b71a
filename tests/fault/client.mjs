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
const TAKE = {
  conversations: [models.conversation, (inbox, rows) => reducer.takeConversations(inbox, rows, false)],
  contacts: [models.contact, reducer.takeContacts],
  messages: [models.message, reducer.takeMessages],
};
const AT_ONCE = 8; // requests of this whole process: it is one browser among many, not a storm
let running = 0;
const queue = [];
const turn = () => (running < AT_ONCE ? void (running += 1) : new Promise((go) => queue.push(go)));
const done = () => (queue.length ? queue.shift()() : void (running -= 1));
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
    this.snapshots = 0; // of these
    this.generation = 0;
    this.closed = false;
    this.opened = new Set();
    this.wanted = {};
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
      const { table, op, entity_id: id } = step.deliver;
      if (table === "conversations" && op === "INSERT" && !this.opened.has(id)) {
        // Its messages come after it: there is nothing to read.
        this.opened.add(id);
        const thread = { messages: [], complete: true, loaded: true };
        this.inbox = { ...this.inbox, threads: new Map(this.inbox.threads).set(id, thread) };
      }
      const { inbox, wants } = reducer.applyEvents(this.inbox, [step.deliver], this.me);
      this.inbox = inbox;
      void this.want(wants);
      this.openNew();
    }
  }

  async rows(table, query) {
    for (;;) {
      if (this.closed) return [];
      await turn();
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
      } finally {
        done();
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
    this.snapshots += 1;
    const parsed = async (table, parser) => (await this.all(table)).map((row) => parser(row, "row"));
    // Every thread is open before its messages are asked for, so that none is missed meanwhile.
    const conversations = await parsed("conversations", models.conversation);
    if (mine === this.generation) {
      this.inbox = reducer.takeConversations(this.inbox, conversations, true);
      for (const row of conversations) {
        this.opened.add(row.id);
        this.inbox = reducer.openThread(this.inbox, row.id);
      }
    }
    const contacts = await parsed("contacts", models.contact);
    const messages = Map.groupBy(await parsed("messages", models.message), (row) => row.conversation_id);
    if (mine === this.generation) {
      this.inbox = reducer.takeContacts(this.inbox, contacts);
      for (const row of conversations) {
        this.inbox = reducer.takeThread(this.inbox, row.id, messages.get(row.id) ?? [], true, true);
      }
      this.openNew();
    }
    this.reading -= 1;
    this.snapshots -= 1;
  }

  openNew() {
    for (const id of this.inbox.conversations.keys()) if (!this.opened.has(id)) void this.openThread(id);
  }

  async openThread(id) {
    if (this.opened.has(id)) return;
    this.opened.add(id);
    const mine = this.generation;
    this.reading += 1;
    this.inbox = reducer.openThread(this.inbox, id);
    const page = (await this.all("messages", `&conversation_id=eq.${id}`)).map((row) => models.message(row, "row"));
    if (mine === this.generation) this.inbox = reducer.takeThread(this.inbox, id, page, true, false);
    this.reading -= 1;
  }

  // One request a table at a time; what is wanted meanwhile goes into the next, as the app does it.
  async want(wants) {
    await Promise.all(Object.keys(TAKE).map((table) => this.wantOf(table, wants[table])));
    this.openNew();
  }

  async wantOf(table, ids) {
    const waiting = (this.wanted[table] ??= { ids: new Set(), asking: false });
    for (const id of ids) waiting.ids.add(id);
    if (waiting.asking) return;
    waiting.asking = true;
    this.reading += 1;
    while (waiting.ids.size) {
      const asked = [...waiting.ids].slice(0, 100);
      for (const id of asked) waiting.ids.delete(id);
      const [parser, take] = TAKE[table];
      const found = await this.rows(table, `id=in.(${asked.join(",")})`);
      this.inbox = take(this.inbox, found.map((row) => parser(row, "row")));
    }
    waiting.asking = false;
    this.reading -= 1;
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
    say([...sessions.values()].map((s) => [s.name, s.cursor?.seq ?? -1, s.reading, s.snapshots]));
  } else if (order.do === "state") {
    say(sessions.get(order.name).state());
  } else if (order.do === "stop") {
    for (const session of sessions.values()) session.stop();
    process.exit(0);
  }
}
