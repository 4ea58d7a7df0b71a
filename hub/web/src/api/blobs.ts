/** Bytes of files as addresses that the page can show. Read when somebody wants them, kept for a while after nobody
 * does, and revoked then. */
import { useCallback, useSyncExternalStore } from "react";
import { ApiError } from "./http";
import { type Progress, readMedia } from "./media";
import { useSession } from "./session";

export type Look =
  | { state: "none" }
  /** `part` between 0 and 1; null before the hub has told the size. */
  | { state: "loading"; part: number | null }
  | { state: "ready"; url: string; blob: Blob }
  | { state: "failed"; error: ApiError };

interface Entry {
  users: number;
  look: Look;
  stop: AbortController | null;
  /** Its request is on its way. */
  asked: boolean;
}

const nothing: Look = { state: "none" };
const fresh = (): Entry => ({ users: 0, look: nothing, stop: null, asked: false });

export interface Limits {
  /** Of what nobody shows right now. */
  entries: number;
  bytes: number;
  atOnce: number;
}

export interface Addresses {
  make(blob: Blob): string;
  drop(url: string): void;
}

export class BlobCache {
  /** In order of use, the least recently used first. */
  private readonly entries = new Map<string, Entry>();
  private readonly listeners = new Map<string, Set<() => void>>();
  private readonly queue: string[] = [];
  private running = 0;

  constructor(
    private readonly read: (id: string, signal: AbortSignal, onProgress: Progress) => Promise<Blob>,
    private readonly limits: Limits,
    private readonly addresses: Addresses,
  ) {}

  look(id: string): Look {
    return this.entries.get(id)?.look ?? nothing;
  }

  listen(id: string, heard: () => void): () => void {
    const set = this.listeners.get(id) ?? new Set();
    this.listeners.set(id, set.add(heard));
    return () => {
      set.delete(heard);
      if (set.size === 0) this.listeners.delete(id);
    };
  }

  /** Reads it unless it is here. The returned step says that it is not shown any more. */
  want(id: string): () => void {
    const entry = this.entries.get(id) ?? fresh();
    this.entries.delete(id);
    this.entries.set(id, entry);
    entry.users += 1;
    if (entry.look.state === "none" || entry.look.state === "failed") this.start(id, entry);
    let over = false;
    return () => {
      if (over) return;
      over = true;
      entry.users -= 1;
      if (entry.users > 0 || this.entries.get(id) !== entry) return;
      if (entry.look.state === "ready") this.trim();
      else {
        entry.stop?.abort();
        this.entries.delete(id);
      }
    };
  }

  /** Reads once more what failed. */
  again(id: string): void {
    const entry = this.entries.get(id);
    if (entry?.look.state === "failed") this.start(id, entry);
  }

  /** What was sent from here needs no reading. */
  seed(id: string, blob: Blob): void {
    if (this.entries.get(id)?.look.state === "ready") return;
    const entry = this.entries.get(id) ?? fresh();
    entry.stop?.abort();
    entry.stop = null;
    this.entries.delete(id);
    this.entries.set(id, entry);
    this.show(id, entry, { state: "ready", url: this.addresses.make(blob), blob });
    this.trim();
  }

  clear(): void {
    for (const [id, entry] of this.entries) {
      entry.stop?.abort();
      if (entry.look.state === "ready") this.addresses.drop(entry.look.url);
      this.entries.delete(id);
      this.tell(id);
    }
  }

  private start(id: string, entry: Entry): void {
    entry.stop = new AbortController();
    entry.asked = false;
    this.show(id, entry, { state: "loading", part: null });
    this.queue.push(id);
    this.next();
  }

  private next(): void {
    while (this.running < this.limits.atOnce) {
      // The last one wanted is the one in sight.
      const id = this.queue.pop();
      if (id === undefined) return;
      const entry = this.entries.get(id);
      if (!entry?.stop || entry.asked || entry.look.state !== "loading") continue;
      entry.asked = true;
      this.running += 1;
      void this.fetch(id, entry, entry.stop).finally(() => {
        this.running -= 1;
        this.next();
      });
    }
  }

  private async fetch(id: string, entry: Entry, stop: AbortController): Promise<void> {
    const outdated = (): boolean => stop.signal.aborted || this.entries.get(id) !== entry || entry.stop !== stop;
    try {
      const blob = await this.read(id, stop.signal, (part) => {
        if (!outdated()) this.show(id, entry, { state: "loading", part });
      });
      if (outdated()) return;
      entry.stop = null;
      this.show(id, entry, { state: "ready", url: this.addresses.make(blob), blob });
      this.trim();
    } catch (error) {
      if (outdated()) return;
      entry.stop = null;
      const known = error instanceof ApiError ? error : new ApiError(0, "NETWORK", String(error));
      this.show(id, entry, { state: "failed", error: known });
    }
  }

  private show(id: string, entry: Entry, look: Look): void {
    entry.look = look;
    this.tell(id);
  }

  private tell(id: string): void {
    for (const heard of this.listeners.get(id) ?? []) heard();
  }

  private trim(): void {
    const idle = [...this.entries].filter(([, one]) => one.users === 0 && one.look.state === "ready");
    let bytes = idle.reduce((sum, [, one]) => sum + (one.look.state === "ready" ? one.look.blob.size : 0), 0);
    let count = idle.length;
    for (const [id, one] of idle) {
      if (count <= this.limits.entries && bytes <= this.limits.bytes) return;
      if (one.look.state !== "ready") continue;
      count -= 1;
      bytes -= one.look.blob.size;
      this.addresses.drop(one.look.url);
      this.entries.delete(id);
    }
  }
}

/** Some screens of pictures; a video or two. */
const LIMITS: Limits = { entries: 40, bytes: 64_000_000, atOnce: 4 };

export const blobs = new BlobCache(readMedia, LIMITS, {
  make: (blob) => URL.createObjectURL(blob),
  drop: (url) => URL.revokeObjectURL(url),
});

// Nothing of what one person saw stays for the next.
let shownTo: string | null = null;
useSession.subscribe((session) => {
  const user = session.status === "signed-in" ? session.userId : null;
  if (shownTo !== null && user !== shownTo) blobs.clear();
  shownTo = user;
});

/** What is there of a file right now; it does not ask for it. */
export function useLook(id: string): Look {
  const listen = useCallback((heard: () => void) => blobs.listen(id, heard), [id]);
  return useSyncExternalStore(listen, () => blobs.look(id));
}

/** Gives the browser a file to save. */
export function saveBlob(blob: Blob, name: string): void {
  const url = URL.createObjectURL(new Blob([blob], { type: "application/octet-stream" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // The browser has taken it by then.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
