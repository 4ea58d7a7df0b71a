import { ActionIcon, Button, Skeleton, TextInput } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { useVirtualizer } from "@tanstack/react-virtual";
import { Eye, Inbox as InboxIcon, ListChecks, Search, X } from "lucide-react";
import { useEffect, useMemo, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { LinkAnnouncer, LinkBadge } from "../../app/LinkBadge";
import { usePrefs } from "../../app/prefs";
import type { InboxSearch } from "../../app/search";
import { channelsQuery, profilesQuery } from "../../api/lists";
import type { Conversation } from "../../api/models";
import "../../i18n/inbox";
import { colleagueName, contactName } from "../../lib/people";
import { QUEUES, type Queue, loadMore, useLive } from "../../realtime/live";
import { EmptyState } from "../../ui/EmptyState";
import { cx } from "../../ui/cx";
import { useHeldFocus } from "../../ui/heldFocus";
import { WelcomeCard } from "../welcome/WelcomeCard";
import css from "./ConversationList.module.css";
import { ConversationRow } from "./ConversationRow";
import { countQueue, holdOrder, searchQueue, sortQueue } from "./queue";
import { SelectionBar } from "./SelectionBar";
import { useLongPress } from "./longPress";
import { pick, startPicking, unpickAll, useSelection } from "./selection";

const ROW = { cosy: 78, compact: 58 };

export interface ConversationListProps {
  queue: Queue;
  search: string;
  me: string;
  selected: string | null;
  /** Tells the page which rows are shown, for J and K. */
  onRows: (ids: readonly string[]) => void;
}

export function ConversationList({ queue, search, me, selected, onRows }: ConversationListProps) {
  const { t } = useTranslation();
  const { t: more } = useTranslation("inbox");
  const navigate = useNavigate({ from: "/inbox" });
  const conversations = useLive((live) => live.inbox.conversations);
  const contacts = useLive((live) => live.inbox.contacts);
  const reads = useLive((live) => live.inbox.reads);
  const loading = useLive((live) => live.loading);
  const failure = useLive((live) => live.failure);
  const complete = useLive((live) => live.complete[queue]);
  const presence = useLive((live) => live.presence);
  const typing = useLive((live) => live.typing);
  const density = usePrefs((prefs) => prefs.density);
  const { data: channels } = useQuery(channelsQuery);
  const { data: profiles } = useQuery(profilesQuery);
  const [frozen, setFrozen] = useState<readonly string[] | null>(null);
  const scroller = useRef<HTMLDivElement>(null);
  const [minute, setMinute] = useState(() => Date.now());

  useEffect(() => {
    const timer = setInterval(() => setMinute(Date.now()), 60_000);
    return () => clearInterval(timer);
  }, []);

  // The last order is what the next one starts from.
  const ordered = useRef<readonly Conversation[]>([]);
  const whole = useMemo(() => {
    ordered.current = sortQueue(conversations, queue, me, ordered.current);
    return ordered.current;
  }, [conversations, queue, me]);
  const sorted = useMemo(() => searchQueue(whole, contacts, search), [whole, contacts, search]);
  const { rows, fresh } = useMemo(() => holdOrder(sorted, frozen), [sorted, frozen]);
  const ids = useMemo(() => rows.map((row) => row.id), [rows]);
  useEffect(() => onRows(ids), [ids, onRows]);
  // Another queue or search is another list: nothing of the old order is held.
  useEffect(() => setFrozen(null), [queue, search]);
  useEffect(() => unpickAll, [queue, search]);

  // What left the list is not picked any more: nobody sees it.
  const pickedIds = useSelection((selection) => selection.ids);
  const picked = useMemo(() => rows.filter((row) => pickedIds.has(row.id)), [rows, pickedIds]);
  const picking = useSelection((selection) => selection.on) || picked.length > 0;
  const longPress = useLongPress(picking, pick);

  const size = ROW[density];
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => size,
    getItemKey: (index) => rows[index]?.id ?? index,
    overscan: 8,
  });
  useEffect(() => virtual.measure(), [size, virtual]);

  const shown = virtual.getVirtualItems();
  const last = shown.at(-1)?.index ?? 0;
  useEffect(() => {
    if (!search && !loading && !complete && last >= rows.length - 20) void loadMore(queue);
  }, [last, rows.length, loading, complete, queue, search]);

  useEffect(() => {
    const index = selected ? ids.indexOf(selected) : -1;
    if (index >= 0) virtual.scrollToIndex(index, { align: "auto" });
    // Only a new selection scrolls: rows moving around the selected one must not.
    // oxlint-disable-next-line react-hooks/exhaustive-deps
  }, [selected]);

  const viewers = useMemo(() => {
    const found = new Map<string, string[]>();
    for (const [user, viewing] of presence) {
      if (!viewing || user === me) continue;
      const name = colleagueName(profiles?.find((one) => one.id === user), "…");
      found.set(viewing, [...(found.get(viewing) ?? []), name]);
    }
    return found;
  }, [presence, profiles, me]);

  /** Another queue or search, beside the same open conversation. */
  const narrow = (change: InboxSearch, replace = false) => {
    const search = (old: InboxSearch): InboxSearch => ({ ...old, ...change });
    if (selected === null) void navigate({ to: "/inbox", search, replace });
    else void navigate({ to: "/inbox/$conversationId", params: { conversationId: selected }, search, replace });
  };

  const empty = {
    mine: [t("list.emptyMine"), t("list.emptyMineHint")],
    unassigned: [t("list.emptyUnassigned"), t("list.emptyUnassignedHint")],
    all: [t("list.emptyAll"), t("list.emptyAllHint")],
    closed: [t("list.emptyClosed"), t("list.emptyClosedHint")],
  }[queue];

  useHeldFocus(scroller, rows);

  return (
    <section className={css.pane} aria-label={t("list.label")}>
      <header className={css.head}>
        <h1 className={css.title}>{t("nav.inbox")}</h1>
        <LinkBadge />
        <LinkAnnouncer />
        <ActionIcon
          className={css.start}
          size={34}
          aria-label={more("select.start")}
          aria-pressed={picking}
          onClick={picking ? unpickAll : startPicking}
        >
          <ListChecks size={18} />
        </ActionIcon>
      </header>
      <div className={css.search}>
        <TextInput
          value={search}
          onChange={(event) => {
            const q = event.currentTarget.value;
            narrow({ q: q || undefined }, true);
          }}
          placeholder={t("list.search")}
          aria-label={t("list.search")}
          leftSection={<Search size={16} aria-hidden />}
          rightSection={
            search ? (
              <ActionIcon
                size={26}
                aria-label={t("list.clear")}
                onClick={() => narrow({ q: undefined }, true)}
              >
                <X size={14} />
              </ActionIcon>
            ) : undefined
          }
          dir="auto"
          variant="filled"
          classNames={{ input: css.searchInput }}
        />
      </div>
      <nav className={css.queues} aria-label={t("queue.label")}>
        {QUEUES.map((one) => (
          <QueueTab
            key={one}
            queue={one}
            active={one === queue}
            me={me}
            selected={selected}
            label={t(`queue.${one}`)}
          />
        ))}
      </nav>
      {picking && (
        <SelectionBar
          picked={picked}
          shown={ids}
          me={me}
          onLeave={() => scroller.current?.querySelector("a")?.focus({ preventScroll: true })}
        />
      )}
      {fresh > 0 && (
        <button type="button" className={css.fresh} onClick={() => setFrozen(null)}>
          {t("list.fresh", { count: fresh })}
        </button>
      )}
      <div
        ref={scroller}
        className={css.scroller}
        data-testid="conversation-list"
        onPointerEnter={(event) => {
          if (event.pointerType === "mouse") setFrozen(ids);
        }}
        onPointerLeave={() => setFrozen(null)}
      >
        {loading && failure === null && <RowSkeletons height={size} />}
        {loading && failure !== null && (
          <EmptyState icon={<InboxIcon size={24} />} title={t("list.failed")} hint={failure} />
        )}
        {!loading && rows.length === 0 && (
          <EmptyState
            icon={search ? <Search size={24} /> : <InboxIcon size={24} />}
            title={search ? t("list.emptySearch", { text: search }) : (empty[0] ?? "")}
            hint={search ? undefined : empty[1]}
            action={
              search ? (
                <Button variant="default" onClick={() => narrow({ q: undefined })}>
                  {t("list.clear")}
                </Button>
              ) : queue === "mine" ? (
                <Button variant="default" onClick={() => narrow({ queue: "unassigned" })}>
                  {t("list.showUnassigned")}
                </Button>
              ) : undefined
            }
          />
        )}
        {rows.length > 0 && (
          <ul className={css.rows} style={{ blockSize: virtual.getTotalSize() }}>
            {shown.map((item) => {
              const row = rows[item.index];
              if (!row) return null;
              return (
                <li
                  key={row.id}
                  className={css.slot}
                  data-pick={row.id}
                  {...longPress}
                  style={{ blockSize: item.size, transform: `translateY(${item.start}px)` }}
                >
                  <label className={cx(css.pick, density === "compact" && css.pickCompact, picking && css.picking)}>
                    <input
                      type="checkbox"
                      checked={pickedIds.has(row.id)}
                      onChange={(event) => pick(row.id, event.currentTarget.checked)}
                      onKeyDown={(event) => {
                        // Shortcuts do not reach into fields.
                        if (event.key === "Escape") unpickAll();
                      }}
                      aria-label={t("bulk.pick", {
                        name: contactName(contacts.get(row.contact_id), t("contact.unknown")),
                      })}
                    />
                  </label>
                  <ConversationRow
                    row={row}
                    contact={contacts.get(row.contact_id)}
                    read={reads.get(row.id)}
                    channel={channels?.find((one) => one.id === row.channel_account_id)}
                    assignee={
                      row.assignee_id
                        ? colleagueName(profiles?.find((one) => one.id === row.assignee_id), "…")
                        : null
                    }
                    viewers={viewers.get(row.id) ?? []}
                    typing={[...(typing.get(row.id)?.keys() ?? [])].some((user) => user !== me)}
                    selected={row.id === selected}
                    picked={pickedIds.has(row.id)}
                    compact={density === "compact"}
                    now={minute}
                  />
                </li>
              );
            })}
          </ul>
        )}
        {!loading && !complete && !search && rows.length > 0 && <p className={css.more}>{t("list.more")}</p>}
      </div>
      <WelcomeCard />
    </section>
  );
}

interface QueueTabProps {
  queue: Queue;
  active: boolean;
  me: string;
  selected: string | null;
  label: string;
}

function QueueTab({ queue, active, me, selected, label }: QueueTabProps) {
  const conversations = useLive((live) => live.inbox.conversations);
  const complete = useLive((live) => live.complete[queue]);
  const counted = useLive((live) => live.counts[queue]);
  const total = useMemo(
    () => (complete ? countQueue(conversations, queue, me) : counted),
    [complete, counted, conversations, queue, me],
  );
  const search = (old: InboxSearch): InboxSearch => ({ ...old, queue: queue === "all" ? undefined : queue });
  const look = { className: cx(css.queue, active && css.queueActive), "aria-current": active ? ("page" as const) : undefined };
  const body = (
    <>
      {label}
      <span className={css.count}>{total}</span>
    </>
  );
  return selected === null ? (
    <Link to="/inbox" search={search} {...look}>
      {body}
    </Link>
  ) : (
    <Link to="/inbox/$conversationId" params={{ conversationId: selected }} search={search} {...look}>
      {body}
    </Link>
  );
}

function RowSkeletons({ height }: { height: number }) {
  return (
    <div className={css.skeletons} aria-hidden>
      {[62, 48, 70, 55, 66, 44].map((width) => (
        <div key={width} className={css.skeleton} style={{ blockSize: height }}>
          <Skeleton height={40} width={40} radius={14} />
          <div>
            <Skeleton height={11} width={`${width}%`} mb={10} />
            <Skeleton height={9} width="88%" />
          </div>
        </div>
      ))}
    </div>
  );
}

/** Eyes on a row: colleagues who look at this conversation right now. */
export function Viewers({ names, label }: { names: readonly string[]; label: string }) {
  if (names.length === 0) return null;
  return (
    <span className={css.viewers} title={label}>
      <Eye size={13} aria-hidden />
      <span className="sr-only">{label}</span>
    </span>
  );
}
