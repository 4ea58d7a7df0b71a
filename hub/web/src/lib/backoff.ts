/** Milliseconds to wait before the attempt-th reconnect (0-based): full jitter between 0.5 s and a doubling
 * ceiling of 15 s, so that a restarted hub is not met by every browser at once. */
export function reconnectDelay(attempt: number, random: () => number = Math.random): number {
  const ceiling = Math.min(15_000, 1_000 * 2 ** Math.min(attempt, 10));
  return Math.round(500 + random() * (ceiling - 500));
}
