/** The newcomer's three steps, ticked off by what really happened in this browser. */
import { create } from "zustand";
import { bool, object, withDefault } from "../../lib/parse";
import { load, save } from "../../lib/storage";
import { useLive } from "../../realtime/live";

const steps = object({
  /** A customer's message arrived while the app was open. */
  wrote: withDefault(bool, false),
  /** A message was sent from here. */
  answered: withDefault(bool, false),
  /** The API page was opened. */
  built: withDefault(bool, false),
  dismissed: withDefault(bool, false),
});
type Steps = ReturnType<typeof steps>;

const KEY = "hub.steps";
export const useSteps = create<Steps>()(() =>
  load(KEY, steps, { wrote: false, answered: false, built: false, dismissed: false }),
);

export function markStep(step: keyof Steps): void {
  if (useSteps.getState()[step]) return;
  useSteps.setState({ [step]: true });
  save(KEY, useSteps.getState());
}

export const dismissSteps = (): void => markStep("dismissed");

// Watches the inbox itself, so that no screen has to report.
useLive.subscribe((live, before) => {
  if (before.loading || useSteps.getState().dismissed) return;
  const left = new Set(live.outbox.map((one) => one.clientRef));
  const sent = before.outbox.some(
    (one) => !left.has(one.clientRef) && (one.state === "sending" || one.state === "accepted"),
  );
  if (sent) markStep("answered");
  if (live.inbox.conversations === before.inbox.conversations) return;
  for (const row of live.inbox.conversations.values()) {
    const known = before.inbox.conversations.get(row.id);
    if (known ? row.inbound_count > known.inbound_count : row.inbound_count > 0 && live.inbox.touched.has(row.id)) {
      markStep("wrote");
      return;
    }
  }
});
