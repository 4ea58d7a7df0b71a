import { Drawer } from "@mantine/core";
import { useHotkeys, useMediaQuery } from "@mantine/hooks";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { MessagesSquare } from "lucide-react";
import { useCallback, useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { useOpenConversation, useOpenId } from "../../app/open";
import { setPrefs, usePrefs } from "../../app/prefs";
import { useSession } from "../../api/session";
import { openConversation } from "../../realtime/live";
import { EmptyState } from "../../ui/EmptyState";
import { cx } from "../../ui/cx";
import { ContactPanel } from "../contacts/ContactPanel";
import { ConversationList } from "./ConversationList";
import { loadDrafts } from "./drafts";
import { closeOrReopen } from "../../app/deeds";
import { endDeal, startDeal, useDealing } from "../../app/dealing";
import { useMay } from "../../app/may";
import { NewDealDialog } from "../contacts/DealForm";
import { pick, unpickAll } from "./selection";
import css from "./InboxPage.module.css";
import { ThreadPane } from "./ThreadPane";

export function InboxPage() {
  const { t } = useTranslation();
  const session = useSession();
  const me = session.status === "signed-in" ? session.userId : "";
  const { queue = "all", q = "" } = useSearch({ from: "/shell/inbox" });
  const navigate = useNavigate({ from: "/inbox" });
  const id = useOpenId();
  const conversation = useOpenConversation();
  const singleKeys = usePrefs((prefs) => prefs.singleKeys);
  const panelWanted = usePrefs((prefs) => prefs.panel);
  const wide = useMediaQuery("(min-width: 76em)", true, { getInitialValueInEffect: false });
  const [drawer, setDrawer] = useState(false);
  const [assigning, setAssigning] = useState(false);
  const rows = useRef<readonly string[]>([]);
  const keepRows = useCallback((ids: readonly string[]) => {
    rows.current = ids;
  }, []);

  loadDrafts(me);
  useEffect(() => {
    openConversation(id);
    setAssigning(false);
    setDrawer(false);
    endDeal();
  }, [id]);
  useEffect(() => () => openConversation(null), []);

  const step = (by: 1 | -1) => {
    const ids = rows.current;
    const here = id ? ids.indexOf(id) : -1;
    const next = here < 0 ? ids[0] : ids[Math.min(ids.length - 1, Math.max(0, here + by))];
    if (next) void navigate({ to: "/inbox/$conversationId", params: { conversationId: next }, search: (old) => old });
  };
  const toggleClosed = () => {
    if (conversation) void closeOrReopen(conversation);
  };
  const reply = () => document.querySelector<HTMLTextAreaElement>("[data-composer]")?.focus();
  const crm = useMay("can_access_crm");
  const dealing = useDealing((now) => now.conversationId !== null);
  const place = { usePhysicalKeys: true };
  useHotkeys(
    singleKeys
      ? [
          ["J", () => step(1), place],
          ["K", () => step(-1), place],
          ["E", toggleClosed, place],
          ["A", () => setAssigning(true), place],
          ["R", reply, place],
          ["D", () => conversation && crm && startDeal(conversation.id), place],
          ["X", () => id && rows.current.includes(id) && pick(id), place],
          [
            "Escape",
            ({ target }) => {
              // What lies over the page closes first.
              if (!(target instanceof Element) || !target.closest("[role=dialog], [role=menu]")) unpickAll();
            },
            { preventDefault: false },
          ],
        ]
      : [],
  );
  // Chatwoot's, with a modifier and therefore also while writing.
  useHotkeys(
    [
      ["alt+J", () => step(1), place],
      ["alt+K", () => step(-1), place],
      ["alt+E", toggleClosed, place],
      ["alt+L", reply, place],
    ],
    [],
  );

  const docked = wide && panelWanted;
  const togglePanel = () => (wide ? setPrefs({ panel: !panelWanted }) : setDrawer((open) => !open));

  return (
    <div className={cx(css.inbox, id !== null && css.one, docked && id !== null && css.withPanel)}>
      <ConversationList queue={queue} search={q} me={me} selected={id} onRows={keepRows} />
      <main className={css.thread} id="main" tabIndex={-1}>
        {id === null ? (
          <EmptyState icon={<MessagesSquare size={24} />} title={t("thread.none")} hint={t("thread.noneHint")} />
        ) : (
          <ThreadPane
            key={id}
            id={id}
            me={me}
            assigning={assigning}
            onAssigning={setAssigning}
            panelShown={wide ? panelWanted : drawer}
            onTogglePanel={togglePanel}
          />
        )}
      </main>
      {docked && conversation && (
        <aside className={css.panel} aria-label={t("contact.label")}>
          <ContactPanel key={conversation.contact_id} conversation={conversation} />
        </aside>
      )}
      <Drawer
        opened={!wide && drawer && conversation !== null}
        onClose={() => {
          setDrawer(false);
          // Its form went with it.
          endDeal();
        }}
        position="right"
        // The form closes first, the panel around it with the next one.
        closeOnEscape={!dealing}
        size={340}
        title={t("contact.label")}
        closeButtonProps={{ "aria-label": t("common.close") }}
      >
        {conversation && <ContactPanel key={conversation.contact_id} conversation={conversation} />}
      </Drawer>
      {conversation && crm && !docked && !drawer && <NewDealDialog conversation={conversation} />}
    </div>
  );
}
