/** Reads that an event asked for because it did not bring its row. The event is gone by then and does not come again,
 * so what is wanted stays wanted until the hub has answered. */
import { ApiError } from "../api/http";
import { reconnectDelay } from "../lib/backoff";

/** Worth asking again: the hub was away, busy, or nobody heard its answer. A refusal is an answer, too. */
export function isUnanswered(error: unknown): boolean {
  return error instanceof ApiError && error.transient;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Reads until there is an answer or nobody wants it any more. Rejects with the hub's refusal. */
export async function untilAnswered(
  read: () => Promise<void>, unwanted: () => boolean, delay: (attempt: number) => number = reconnectDelay,
): Promise<void> {
  for (let attempt = 0; !unwanted(); attempt += 1) {
    try {
      await read();
      return;
    } catch (error) {
      if (!isUnanswered(error)) throw error;
    }
    await pause(delay(attempt));
  }
}

export interface WantedReads<K extends string> {
  /** Reads these rows; the returned step puts them in, unless all was forgotten meanwhile. */
  read: (kind: K, ids: readonly string[]) => Promise<() => void>;
  /** A refusal, or a row that could not be understood: these ids are given up. */
  refused: (error: unknown) => void;
  delay?: (attempt: number) => number;
}

/** Ids by kind that still have to be read. One request a kind is on its way at a time; what is wanted meanwhile, the
 * same id included, is asked for after it, because that request may have been answered before the change. */
export class Wanted<K extends string> {
  private readonly waiting = new Map<K, Set<string>>();
  private readonly asking = new Map<K, ReadonlySet<string>>();
  private attempt = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private generation = 0;

  constructor(private readonly how: WantedReads<K>) {}

  want(kind: K, ids: Iterable<string>): void {
    this.keep(kind, ids);
    // While something failed, all wait for the same next try: a hub that is short of breath is asked once.
    if (this.timer === undefined) this.ask();
  }

  /** What was not answered yet. */
  open(kind: K): string[] {
    return [...new Set([...(this.asking.get(kind) ?? []), ...(this.waiting.get(kind) ?? [])])];
  }

  /** Another organization, or nobody: nothing is wanted any more, nor what is on its way. */
  forget(): void {
    this.generation += 1;
    clearTimeout(this.timer);
    this.timer = undefined;
    this.attempt = 0;
    this.waiting.clear();
    this.asking.clear();
  }

  private keep(kind: K, ids: Iterable<string>): void {
    const set = this.waiting.get(kind) ?? new Set<string>();
    for (const id of ids) set.add(id);
    if (set.size) this.waiting.set(kind, set);
  }

  private ask(): void {
    this.timer = undefined;
    for (const [kind, ids] of this.waiting) {
      if (this.asking.has(kind)) continue;
      this.waiting.delete(kind);
      this.asking.set(kind, ids);
      void this.one(kind, ids);
    }
  }

  private async one(kind: K, ids: ReadonlySet<string>): Promise<void> {
    const { generation } = this;
    const outdated = (): boolean => generation !== this.generation;
    try {
      const take = await this.how.read(kind, [...ids]);
      if (outdated()) return;
      this.attempt = 0;
      take();
    } catch (error) {
      if (outdated()) return;
      if (isUnanswered(error)) {
        this.keep(kind, ids);
        this.timer ??= setTimeout(() => this.ask(), (this.how.delay ?? reconnectDelay)(this.attempt));
        this.attempt += 1;
      } else this.how.refused(error);
    }
    this.asking.delete(kind);
    if (this.timer === undefined) this.ask();
  }
}
