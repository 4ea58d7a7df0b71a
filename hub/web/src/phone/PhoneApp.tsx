/** The customer's side of the demo: pick somebody, write as them. Plain React: this page has no need of a kit. */
import { ArrowLeft, FileText, Languages, Paperclip, SendHorizontal } from "lucide-react";
import { useCallback, useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { ApiError } from "../api/http";
import { localeOf, setLanguage } from "../i18n";
import { kindLabel } from "../i18n/labels";
import { newId } from "../lib/ids";
import { clockTime, dayLabel, rowTime, sameDay } from "../lib/time";
import { Avatar } from "../ui/Avatar";
import { Counter } from "../ui/Chip";
import { RichText } from "../ui/RichText";
import { type TickState, Ticks } from "../ui/Ticks";
import { cx } from "../ui/cx";
import {
  type HubState, type Persona, type Phone, type PhoneMessage, type Saying, fetchMessages, fetchPhone, markRead, say,
  uploadFile,
} from "./api";
import { openLine } from "./connection";
import css from "./PhoneApp.module.css";
import { type Chat, choicesOf, emptyChat, fileMessage, fileOf, foldFrame, put } from "./store";

const POLL_MS = 4_000;

function personaInHash(): string | null {
  const found = decodeURIComponent(location.hash.slice(1));
  return found === "" ? null : found;
}

export function PhoneApp() {
  const { t, i18n } = useTranslation();
  const [phone, setPhone] = useState<Phone | null>(null);
  const [away, setAway] = useState(false);
  const [chosen, setChosen] = useState<string | null>(personaInHash);

  const read = useCallback(() => {
    fetchPhone()
      .then((found) => {
        setPhone(found);
        setAway(false);
      })
      .catch((error: unknown) => {
        if (!(error instanceof ApiError)) throw error;
        setAway(true);
      });
  }, []);
  useEffect(() => {
    read();
    const timer = setInterval(read, POLL_MS);
    const moved = () => setChosen(personaInHash());
    addEventListener("hashchange", moved);
    return () => {
      clearInterval(timer);
      removeEventListener("hashchange", moved);
    };
  }, [read]);
  useEffect(() => {
    document.title = t("phone.title");
  }, [t]);

  const pick = (id: string | null) => {
    location.hash = id === null ? "" : encodeURIComponent(id);
  };
  const persona = phone?.personas.find((one) => one.id === chosen);

  return (
    <div className={cx(css.desk, persona && css.one)}>
      <div className={css.device}>
        <section className={css.people} aria-label={t("phone.people")}>
          <header className={css.head}>
            <div>
              <h1 className={css.title}>{t("phone.pick")}</h1>
              <p className={css.intro}>{t("phone.intro")}</p>
            </div>
          </header>
          {away && (
            <p className={css.away} role="status">
              {t("phone.away")}
            </p>
          )}
          <ul className={css.list}>
            {phone?.personas.map((one) => (
              <li key={one.id}>
                <PersonRow persona={one} selected={one.id === chosen} onPick={() => pick(one.id)} />
              </li>
            ))}
          </ul>
          <button
            type="button"
            className={css.language}
            onClick={() => void setLanguage(i18n.language === "ar" ? "en" : "ar")}
          >
            <Languages size={16} aria-hidden /> {t("phone.language")}
          </button>
        </section>
        <main className={css.screen}>
          {phone && persona ? (
            <Conversation
              key={persona.id}
              persona={persona}
              account={phone.accounts[0]?.account ?? ""}
              accountName={phone.accounts[0]?.name ?? ""}
              hub={phone.hub}
              onBack={() => pick(null)}
              onChange={read}
            />
          ) : (
            <p className={css.hint}>{t("phone.pick")}</p>
          )}
        </main>
      </div>
    </div>
  );
}

function PersonRow({ persona, selected, onPick }: { persona: Persona; selected: boolean; onPick: () => void }) {
  const { t, i18n } = useTranslation();
  const unread = persona.threads.reduce((sum, one) => sum + one.unread, 0);
  const last = persona.threads[0];
  return (
    <button
      type="button"
      className={cx(css.person, selected && css.selected)}
      aria-pressed={selected}
      onClick={onPick}
      data-testid={`persona-${persona.id}`}
    >
      <Avatar name={persona.name} size="md" />
      <span className={css.personText}>
        <span className={css.personLine}>
          <bdi className={css.personName}>{persona.name}</bdi>
          {last?.last_at && <time className={css.time}>{rowTime(last.last_at, Date.now(), localeOf(i18n.language))}</time>}
        </span>
        <span className={css.personLine}>
          <span className={css.personSub}>
            <bdi dir={last?.last_message ? "auto" : "ltr"}>
              {last?.last_message?.content || (persona.phone ? `+${persona.phone}` : `@${persona.username ?? persona.id}`)}
            </bdi>
          </span>
          {unread > 0 && <Counter value={unread} label={t("phone.unread", { count: unread })} />}
        </span>
      </span>
    </button>
  );
}

interface Waiting {
  ref: string;
  /** What is said; with a file it is known only after its upload. */
  saying: Saying | null;
  file?: File | undefined;
  text: string;
  failure: string | null;
}

interface ConversationProps {
  persona: Persona;
  account: string;
  accountName: string;
  hub: HubState;
  onBack: () => void;
  onChange: () => void;
}

function Conversation({ persona, account, accountName, hub, onBack, onChange }: ConversationProps) {
  const { t, i18n } = useTranslation();
  const lang = localeOf(i18n.language);
  const [chat, setChat] = useState<Chat>(emptyChat);
  const [connected, setConnected] = useState(false);
  const [waiting, setWaiting] = useState<readonly Waiting[]>([]);
  const [draft, setDraft] = useState("");
  const [hubNow, setHubNow] = useState(hub);
  const end = useRef<HTMLDivElement>(null);
  const field = useRef<HTMLTextAreaElement>(null);
  const chooser = useRef<HTMLInputElement>(null);

  useEffect(() => setHubNow(hub), [hub]);
  useEffect(() => {
    const load = () => {
      fetchMessages(persona.id)
        .then((page) => setChat((old) => put(old, page.messages)))
        .catch((error: unknown) => {
          // The line tells when the sandbox is back, and then they are read again.
          if (!(error instanceof ApiError)) throw error;
        });
    };
    const line = openLine(
      persona.id,
      (frame) => {
        if (frame.type === "hello" || frame.type === "reset") load();
        if (frame.type === "hub") setHubNow({ reachable: frame.reachable, detail: frame.detail, pending: frame.pending });
        setChat((old) => foldFrame(old, frame));
        if (frame.type === "message") onChange();
      },
      setConnected,
    );
    return () => line.close();
  }, [persona.id, onChange]);

  const unseen = chat.messages.some((one) => one.from === "business" && one.state !== "read" && one.state !== "failed");
  const [visible, setVisible] = useState(document.visibilityState === "visible");
  useEffect(() => {
    const look = () => setVisible(document.visibilityState === "visible");
    document.addEventListener("visibilitychange", look);
    return () => document.removeEventListener("visibilitychange", look);
  }, []);
  useEffect(() => {
    if (unseen && visible && connected) void markRead(persona.id, account).then(onChange);
  }, [unseen, visible, connected, persona.id, account, onChange, chat.messages.length]);

  useEffect(() => {
    end.current?.scrollIntoView({ block: "end" });
  }, [chat.messages.length, waiting.length, chat.typing]);

  const deliver = (one: Waiting) => {
    setWaiting((old) => [...old.filter((other) => other.ref !== one.ref), { ...one, failure: null }]);
    const said = async () => {
      const saying = one.saying ?? (one.file && fileMessage(await uploadFile(one.file), one.file, one.text)) ?? {};
      return say(persona.id, account, saying, one.ref);
    };
    said()
      .then((message) => {
        setWaiting((old) => old.filter((other) => other.ref !== one.ref));
        setChat((old) => put(old, old.messages.some((known) => known.id === message.id) ? [] : [message]));
      })
      .catch((error: unknown) => {
        if (!(error instanceof ApiError)) throw error;
        setWaiting((old) => old.map((other) => (other.ref === one.ref ? { ...other, failure: error.message } : other)));
      });
  };
  const write = (text: string, saying: Saying) => deliver({ ref: newId(), saying, text, failure: null });
  /** The words go beneath the last one. */
  const sendFiles = (files: readonly File[]) => {
    files.forEach((file, index) => {
      const text = index === files.length - 1 ? draft.trim() : "";
      deliver({ ref: newId(), saying: null, file, text, failure: null });
    });
    if (files.length > 0) setDraft("");
  };
  const send = () => {
    const text = draft.trim();
    if (text === "") return;
    write(text, { type: "text", text: { body: text } });
    setDraft("");
  };

  const shown = chat.messages.filter((one) => !(one.from === "business" && one.state === "failed"));
  return (
    <>
      <header className={css.bar}>
        <button type="button" className={css.back} onClick={onBack} aria-label={t("phone.back")}>
          <ArrowLeft size={20} className="mirrored" aria-hidden />
        </button>
        <Avatar name={persona.name} size="sm" />
        <div className={css.who}>
          <h2 className={css.name}>
            <bdi>{persona.name}</bdi>
          </h2>
          <p className={css.status} role="status">
            {connected ? (
              <>
                {t("phone.account")} <bdi>{accountName}</bdi>
              </>
            ) : (
              t("phone.offline")
            )}
          </p>
        </div>
      </header>
      {hubNow.reachable === false && (
        <p className={css.away} role="status">
          {t("app.hubAway")} {hubNow.pending > 0 && `(${hubNow.pending})`}
        </p>
      )}
      <div
        className={css.thread}
        role="log"
        aria-label={t("phone.thread", { name: persona.name, account: accountName })}
        // A scrolling region has to be reachable by keyboard.
        // oxlint-disable-next-line jsx-a11y/no-noninteractive-tabindex
        tabIndex={0}
      >
        {shown.length === 0 && waiting.length === 0 && <p className={css.hint}>{t("phone.empty")}</p>}
        {shown.map((one, index) => {
          const before = shown[index - 1];
          return (
            <div key={one.id}>
              {(!before || !sameDay(before.at, one.at)) && (
                <p className={css.day}>{dayLabel(one.at, Date.now(), lang)}</p>
              )}
              <Bubble message={one} last={index === shown.length - 1} onChoose={(choice) => write(choice.label, choice.says)} />
            </div>
          );
        })}
        {waiting.map((one) => (
          <div key={one.ref} className={cx(css.row, css.mine)}>
            <div className={css.bubble}>
              {one.file && (
                <p className={css.file}>
                  <FileText size={20} aria-hidden /> <bdi>{one.file.name}</bdi>
                </p>
              )}
              <p className={css.text} dir="auto">
                {one.text}
              </p>
              <p className={css.foot}>
                <Ticks state={one.failure === null ? "waiting" : "failed"} label={t("phone.stored")} />
              </p>
            </div>
            {one.failure !== null && (
              <p className={css.failure}>
                {t("phone.notSent", { reason: one.failure })}{" "}
                <button type="button" onClick={() => deliver(one)}>
                  {t("phone.retry")}
                </button>
              </p>
            )}
          </div>
        ))}
        {chat.typing && (
          <p className={css.typing}>
            <bdi>{accountName}</bdi> {t("phone.typing")}
          </p>
        )}
        <div ref={end} />
      </div>
      <form
        className={css.composer}
        onSubmit={(event) => {
          event.preventDefault();
          send();
          field.current?.focus();
        }}
      >
        <input
          ref={chooser}
          type="file"
          multiple
          hidden
          aria-hidden
          tabIndex={-1}
          data-testid="file-chooser"
          onChange={(event) => {
            sendFiles([...(event.currentTarget.files ?? [])]);
            event.currentTarget.value = "";
          }}
        />
        <button type="button" className={css.attach} aria-label={t("phone.attach")} title={t("phone.attach")} onClick={() => chooser.current?.click()}>
          <Paperclip size={18} aria-hidden />
        </button>
        <textarea
          ref={field}
          value={draft}
          rows={1}
          dir="auto"
          aria-label={t("phone.writeLabel", { name: persona.name })}
          placeholder={t("phone.write")}
          className={css.field}
          onChange={(event) => setDraft(event.currentTarget.value)}
          onPaste={(event) => {
            const { clipboardData } = event;
            if (clipboardData.files.length === 0 || clipboardData.types.includes("text/plain")) return;
            event.preventDefault();
            sendFiles([...clipboardData.files]);
          }}
          onKeyDown={(event) => {
            if (event.key === "Enter" && !event.shiftKey && !event.nativeEvent.isComposing) {
              event.preventDefault();
              send();
            }
          }}
        />
        <button type="submit" className={css.send} aria-label={t("phone.send")} disabled={draft.trim() === ""}>
          <SendHorizontal size={18} className="mirrored" aria-hidden />
        </button>
      </form>
    </>
  );
}

const ticks: Record<PhoneMessage["state"], TickState> = {
  stored: "waiting", sent: "sent", delivered: "sent", read: "read", failed: "failed",
};

function BubbleFile({ message }: { message: PhoneMessage }) {
  const { t } = useTranslation();
  const file = fileOf(message);
  if (!file) return null;
  switch (file.kind) {
    case "image":
    case "sticker":
      return (
        <a href={file.url} target="_blank" rel="noopener noreferrer" className={css.picture}>
          <img src={file.url} alt={kindLabel(t, file.kind)} loading="lazy" />
        </a>
      );
    case "video":
      return (
        // oxlint-disable-next-line jsx-a11y/media-has-caption
        <video className={css.film} src={file.url} controls preload="metadata" aria-label={kindLabel(t, file.kind)} />
      );
    case "audio":
      return (
        // oxlint-disable-next-line jsx-a11y/media-has-caption
        <audio className={css.sound} src={file.url} controls preload="metadata" aria-label={kindLabel(t, file.kind)} />
      );
    default:
      return (
        <a href={file.url} download={file.name} className={css.file}>
          <FileText size={20} aria-hidden /> <bdi>{file.kind === "document" ? file.name : kindLabel(t, file.kind)}</bdi>
        </a>
      );
  }
}

interface BubbleProps {
  message: PhoneMessage;
  last: boolean;
  onChoose: (choice: { label: string; says: Saying }) => void;
}

function Bubble({ message, last, onChoose }: BubbleProps) {
  const { t, i18n } = useTranslation();
  const mine = message.from === "me";
  const labels: Record<PhoneMessage["state"], string> = {
    stored: t("phone.stored"),
    sent: t("phone.stored"),
    delivered: t("phone.delivered"),
    read: t("phone.read"),
    failed: t("phone.failed"),
  };
  const choices = choicesOf(message);
  return (
    <article
      className={cx(css.row, mine && css.mine)}
      data-testid="phone-message"
      data-from={message.from}
      data-state={message.state}
    >
      <div className={css.bubble}>
        {message.deleted ? (
          <p className={css.gone}>{t("bubble.deleted")}</p>
        ) : (
          <>
            <BubbleFile message={message} />
            {message.type !== "text" && message.content === "" && fileOf(message) === null && (
              <p className={css.gone}>{kindLabel(t, message.type)}</p>
            )}
            {message.content !== "" && (
              <p className={css.text} dir="auto">
                <RichText text={message.content} />
              </p>
            )}
          </>
        )}
        <p className={css.foot}>
          {message.reactions.map((one) => (
            <span key={`${one.by}${one.emoji}`}>{one.emoji}</span>
          ))}
          <time dateTime={message.at}>{clockTime(message.at, localeOf(i18n.language))}</time>
          {mine && <Ticks state={ticks[message.state]} label={labels[message.state]} />}
        </p>
      </div>
      {last && choices.length > 0 && (
        <div className={css.choices}>
          {choices.map((one) => (
            <button
              key={one.key}
              type="button"
              onClick={() => onChoose({ label: one.label, says: { ...one.says, context: { id: message.id } } })}
            >
              <bdi>{one.label}</bdi>
            </button>
          ))}
        </div>
      )}
    </article>
  );
}
