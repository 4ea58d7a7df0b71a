/** Desktop notices of what customers write while nobody looks at this page: for conversations that are one's own or
 * nobody's yet. One a conversation; it goes when the conversation is read. */
import i18n from "i18next";
import type { Conversation } from "../api/models";
import { previewOf } from "../i18n/labels";
import { contactName } from "../lib/people";
import { useLive } from "../realtime/live";
import { type Inbox, unreadCount } from "../realtime/reducer";
import { newsIn } from "./news";
import { router } from "./router";

const looking = (): boolean => document.visibilityState === "visible" && document.hasFocus();

/** Until the returned step. */
export function startNotices(me: string): () => void {
  const open = new Map<string, Notification>();
  const close = (id: string) => {
    open.get(id)?.close();
    open.delete(id);
  };
  const show = (row: Conversation, inbox: Inbox) => {
    const title = contactName(inbox.contacts.get(row.contact_id), i18n.t("contact.unknown"));
    const notice = new Notification(title, {
      body: previewOf(i18n.t, row.last_message_preview), tag: row.id, lang: i18n.language,
      dir: document.documentElement.dir === "rtl" ? "rtl" : "ltr",
    });
    notice.addEventListener("click", () => {
      window.focus();
      void router.navigate({ to: "/inbox/$conversationId", params: { conversationId: row.id } });
      close(row.id);
    });
    open.set(row.id, notice);
  };
  const stop = useLive.subscribe((live, before) => {
    for (const id of open.keys()) {
      const row = live.inbox.conversations.get(id);
      if (!row || unreadCount(row, live.inbox.reads.get(id)) === 0) close(id);
    }
    if (live.loading || before.loading || looking()) return;
    for (const row of newsIn(before.inbox, live.inbox, me, Date.now())) show(row, live.inbox);
  });
  return () => {
    stop();
    for (const id of open.keys()) close(id);
  };
}
