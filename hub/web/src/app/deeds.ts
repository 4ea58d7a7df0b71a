/** Deeds of the user that may be refused: done over the live connection, explained when they fail. */
import { notifications } from "@mantine/notifications";
import i18n from "i18next";
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
  notifications.show({ title: i18n.t("error.title"), message: explain(error), color: "red", autoClose: 8_000 });
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
