/** One deed on many conversations: in order, at a pace the hub allows, and with a word on what did not work. */

/** The hub closes on more than 30 frames a second; people and receipts need some of them, too. */
const PER_SECOND = 15;

export interface Bulk<T> {
  done: T[];
  failed: { item: T; error: unknown }[];
}

export async function each<T>(items: readonly T[], deed: (item: T) => Promise<unknown>): Promise<Bulk<T>> {
  const result: Bulk<T> = { done: [], failed: [] };
  const started = Date.now();
  const one = async (item: T, index: number): Promise<void> => {
    const wait = started + (index * 1_000) / PER_SECOND - Date.now();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    try {
      await deed(item);
      result.done.push(item);
    } catch (error) {
      result.failed.push({ item, error });
    }
  };
  await Promise.all(items.map(one));
  return result;
}
