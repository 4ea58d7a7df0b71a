/** Files that wait to be sent, kept in this browser's IndexedDB so that closing the page loses none. Where the browser
 * refuses to keep them they live as long as the page. */
import { isRecord } from "./parse";

export interface KeptFile {
  key: string;
  user: string;
  blob: Blob;
  name: string;
  /** The hub's id once it is up. */
  mediaId: string | null;
  /** Epoch milliseconds. */
  at: number;
}

const DATABASE = "hub.files";
const STORE = "files";

let opened: Promise<IDBDatabase> | null = null;

function open(): Promise<IDBDatabase> {
  opened ??= new Promise<IDBDatabase>((resolve, reject) => {
    const asked = indexedDB.open(DATABASE, 1);
    asked.addEventListener("upgradeneeded", () => asked.result.createObjectStore(STORE, { keyPath: "key" }));
    asked.addEventListener("success", () => resolve(asked.result));
    asked.addEventListener("error", () => reject(asked.error ?? new Error("no storage")));
  }).catch((error: unknown) => {
    opened = null;
    throw error;
  });
  return opened;
}

async function run<T>(mode: IDBTransactionMode, ask: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const database = await open();
  return new Promise((resolve, reject) => {
    const work = database.transaction(STORE, mode);
    const asked = ask(work.objectStore(STORE));
    work.addEventListener("complete", () => resolve(asked.result));
    work.addEventListener("abort", () => reject(work.error ?? new Error("not kept")));
  });
}

function asKept(value: unknown): KeptFile | null {
  if (!isRecord(value)) return null;
  const { key, user, blob, name, mediaId, at } = value;
  if (typeof key !== "string" || typeof user !== "string" || !(blob instanceof Blob)) return null;
  return {
    key, user, blob,
    name: typeof name === "string" ? name : "",
    mediaId: typeof mediaId === "string" ? mediaId : null,
    at: typeof at === "number" ? at : 0,
  };
}

/** False when the browser did not keep it. */
export async function keepFile(file: KeptFile): Promise<boolean> {
  try {
    await run("readwrite", (store) => store.put(file));
    return true;
  } catch {
    return false;
  }
}

export async function keptFile(key: string): Promise<KeptFile | null> {
  try {
    return asKept(await run<unknown>("readonly", (store) => store.get(key)));
  } catch {
    return null;
  }
}

export async function forgetFile(key: string): Promise<void> {
  try {
    await run("readwrite", (store) => store.delete(key));
  } catch {
    // It goes with the old ones.
  }
}

/** Drops what is older than `before`: nobody came back to send it. */
export async function forgetOldFiles(before: number): Promise<void> {
  try {
    const all = await run<unknown[]>("readonly", (store) => store.getAll());
    for (const one of all.map(asKept)) if (one && one.at < before) await forgetFile(one.key);
  } catch {
    // Without storage there is nothing old.
  }
}
