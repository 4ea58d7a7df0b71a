/** Deeds of the user that may be refused: done over the live connection, explained when they fail. */
import { Button } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import i18n from "i18next";
import type { Conversation } from "../api/models";
import { act } from "../realtime/live";
import { isTransient } from "../realtime/outbox";
import { CommandError } from "../realtime/socket";

export function explain(error: unknown): string {
  if (error instanceof CommandError) {
    if (error.code === "DISCONNECTED") return i18n.t("error.offline");
    if (error.code === "INSUFFICIENT_PERMISSIONS") return i18n.t("error.denied");
    if (error.code === "RESOURCE_NOT_FOUND") return i18n.t("error.notFound");
    if (isTransient(error.code) && error.message === "") return i18n.t("error.offline");
  }
  return i18n.t("error.generic", { message: error instanceof Error ? error.message : String(error) });
}

export function complain(error: unknown): void {
  notifications.show({
    title: i18n.t("error.title"),
    message: explain(error),
    color: "red",
    autoClose: 8_000,
    closeButtonProps: { "aria-label": i18n.t("common.dismiss") },
  });
}

/** True when the hub did it. */
export async function perform(
  name: "assign" | "close" | "reopen" | "tag" | "retry", args: Record<string, unknown>,
): Promise<boolean> {
  try {
    await act(name, args);
    return true;
  } catch (error) {
    complain(error);
    return false;
  }
}

let offered: string | null = null;

/** Says what was done and takes it back on demand. Only the last deed is offered: more would cover the work. */
function offerUndo(words: string, undo: () => Promise<boolean>): void {
  if (offered !== null) notifications.hide(offered);
  const id = notifications.show({
    autoClose: 5_000,
    withCloseButton: true,
    closeButtonProps: { "aria-label": i18n.t("common.dismiss") },
    color: "pine",
    message: (
      <span style={{ display: "flex", alignItems: "center", justifyContent: "space-between", gap: 12 }}>
        {words}
        <Button
          size="compact-sm"
          variant="default"
          onClick={() => {
            notifications.hide(id);
            void undo();
          }}
        >
          {i18n.t("common.undo")}
        </Button>
      </span>
    ),
  });
  offered = id;
}

export async function closeOrReopen(row: Conversation): Promise<void> {
  const [deed, back] = row.status === "CLOSED" ? (["reopen", "close"] as const) : (["close", "reopen"] as const);
  if (await perform(deed, { conversation_id: row.id })) {
    offerUndo(i18n.t(deed === "close" ? "thread.closed" : "thread.reopened"), () =>
      perform(back, { conversation_id: row.id }),
    );
  }
}

/** `name` is whom it goes to; null = nobody. */
export async function assign(row: Conversation, assignee: string | null, name: string | null): Promise<void> {
  if (row.assignee_id === assignee) return;
  const give = (to: string | null) => perform("assign", { conversation_id: row.id, assignee_id: to });
  if (await give(assignee)) {
    offerUndo(name === null ? i18n.t("thread.unassigned") : i18n.t("thread.assigned", { name }), () =>
      give(row.assignee_id),
    );
  }
}
