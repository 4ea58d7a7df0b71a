/** Deeds of the user that may be refused: done over the live connection, explained when they fail. */
import { Button } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import i18n from "i18next";
import { ApiError } from "../api/http";
import type { Conversation } from "../api/models";
import { patch } from "../api/rest";
import { act } from "../realtime/live";
import { type Bulk, each } from "./bulk";
import { isTransient } from "../realtime/outbox";
import { CommandError } from "../realtime/socket";

export function explain(error: unknown): string {
  if (error instanceof CommandError || error instanceof ApiError) {
    if (error.code === "DISCONNECTED" || error.code === "NETWORK") return i18n.t("error.offline");
    if (error.code === "INSUFFICIENT_PERMISSIONS") return i18n.t("error.denied");
    if (error.code === "RESOURCE_NOT_FOUND") return i18n.t("error.notFound");
    if (isTransient(error.code) && error.message === "") return i18n.t("error.offline");
  }
  return i18n.t("error.generic", { message: error instanceof Error ? error.message : String(error) });
}

export function complain(error: unknown, title: string = i18n.t("error.title")): void {
  notifications.show({
    title,
    message: explain(error),
    color: "red",
    autoClose: 8_000,
    closeButtonProps: { "aria-label": i18n.t("common.dismiss") },
  });
}

/** Says that something is done. */
export function announce(message: string): void {
  notifications.show({ message, color: "pine", closeButtonProps: { "aria-label": i18n.t("common.dismiss") } });
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
function offerUndo(words: string, undo: () => Promise<unknown>): void {
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

/** The hub empties the message and leaves its place; there is no way back, so this is asked before. */
export async function deleteMessage(id: string): Promise<boolean> {
  try {
    await patch("messages", { id: `eq.${id}` }, { deleted_at: new Date().toISOString() });
    return true;
  } catch (error) {
    complain(error);
    return false;
  }
}

/** Says how many it was done to; the first refusal stands for all of them. */
function reportBulk({ done, failed }: Bulk<Conversation>, words: string, undo?: () => Promise<unknown>): void {
  if (failed[0]) {
    complain(failed[0].error, i18n.t("bulk.failed", { count: failed.length }));
  }
  if (done.length && undo) offerUndo(words, undo);
}

export async function closeOrReopenAll(picked: readonly Conversation[], closed: boolean): Promise<void> {
  const [deed, back] = closed ? (["reopen", "close"] as const) : (["close", "reopen"] as const);
  const rows = picked.filter((row) => (row.status === "CLOSED") === closed);
  const bulk = await each(rows, (row) => act(deed, { conversation_id: row.id }));
  const count = bulk.done.length;
  reportBulk(bulk, closed ? i18n.t("bulk.reopened", { count }) : i18n.t("bulk.closed", { count }), async () =>
    reportBulk(await each(bulk.done, (row) => act(back, { conversation_id: row.id })), ""),
  );
}

export async function assignAll(
  picked: readonly Conversation[], assignee: string | null, name: string | null,
): Promise<void> {
  const rows = picked.filter((row) => row.assignee_id !== assignee);
  const bulk = await each(rows, (row) => act("assign", { conversation_id: row.id, assignee_id: assignee }));
  const count = bulk.done.length;
  const words = name === null ? i18n.t("bulk.unassigned", { count }) : i18n.t("bulk.assigned", { count, name });
  reportBulk(bulk, words, async () =>
    reportBulk(
      await each(bulk.done, (row) => act("assign", { conversation_id: row.id, assignee_id: row.assignee_id })),
      "",
    ),
  );
}

export async function tagAll(picked: readonly Conversation[], tag: string): Promise<void> {
  const rows = picked.filter((row) => !row.tags.includes(tag));
  const change = (add: string[], remove: string[]) => (row: Conversation) =>
    act("tag", { conversation_id: row.id, add, remove });
  const bulk = await each(rows, change([tag], []));
  reportBulk(bulk, i18n.t("bulk.tagged", { count: bulk.done.length, tag }), async () =>
    reportBulk(await each(bulk.done, change([], [tag])), ""),
  );
}
