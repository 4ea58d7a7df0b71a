import { Button, CopyButton, TextInput, Textarea, UnstyledButton } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Check, Copy, Plus } from "lucide-react";
import { type ReactNode, useState } from "react";
import { useTranslation } from "react-i18next";
import { dealsOf, identitiesOf, notesOf, profilesQuery, tasksOf } from "../../api/lists";
import { type Contact, type Conversation, note } from "../../api/models";
import { insert } from "../../api/rest";
import { localeOf } from "../../i18n";
import { colleagueName, contactName } from "../../lib/people";
import { fullTime, shortDate } from "../../lib/time";
import { useLive } from "../../realtime/live";
import { Avatar } from "../../ui/Avatar";
import { Chip } from "../../ui/Chip";
import { RichText } from "../../ui/RichText";
import css from "./ContactPanel.module.css";
import { complain, perform } from "../../app/deeds";
import { useMay } from "../../app/may";
import { schemeLabel } from "../../i18n/labels";
import { NewDeal } from "./DealForm";
import { Fetched } from "./Fetched";
import { History } from "./History";

export function ContactPanel({ conversation }: { conversation: Conversation }) {
  const { t } = useTranslation();
  const contact = useLive((live) => live.inbox.contacts.get(conversation.contact_id));
  const identities = useQuery(identitiesOf(conversation.contact_id));
  const deals = useQuery(dealsOf(conversation.contact_id));
  const tasks = useQuery(tasksOf(conversation.contact_id));
  const { i18n } = useTranslation();
  const lang = localeOf(i18n.language);
  const name = contactName(contact, t("contact.unknown"));
  const crm = useMay("can_access_crm");

  return (
    <div className={css.panel}>
      <div className={css.top}>
        <Avatar name={name} size="lg" />
        <h3 className={css.name}>
          <bdi>{name}</bdi>
        </h3>
        {contact?.job_title && (
          <p className={css.sub}>
            <bdi>{contact.job_title}</bdi>
          </p>
        )}
      </div>

      <Section title={t("contact.identities")}>
        <Fetched query={identities} none={t("contact.noFields")}>
          {(list) => (
            <ul className={css.list}>
              {list.map((one) => (
                <li key={one.id} className={css.identity}>
                  <span className={css.label}>{schemeLabel(t, one.scheme)}</span>
                  <CopyButton value={one.value} timeout={1_500}>
                    {(copy) => (
                      <UnstyledButton
                        className={css.copy}
                        onClick={copy.copy}
                        title={copy.copied ? t("contact.copied") : t("contact.copy")}
                      >
                        <bdi dir="ltr">{one.value}</bdi>
                        {copy.copied ? <Check size={13} aria-hidden /> : <Copy size={13} aria-hidden />}
                        <span className="sr-only">{copy.copied ? t("contact.copied") : t("contact.copy")}</span>
                      </UnstyledButton>
                    )}
                  </CopyButton>
                </li>
              ))}
            </ul>
          )}
        </Fetched>
      </Section>

      <Section title={t("contact.tags")}>
        <Tags conversation={conversation} />
      </Section>

      {contact && <Fields contact={contact} />}

      <Section title={t("contact.deals")} action={crm && <NewDeal conversation={conversation} />}>
        <Fetched query={deals} none={t("contact.noDeals")}>
          {(list) => (
            <ul className={css.list}>
              {list.map((one) => (
                <li key={one.id} className={css.card}>
                  <span className={css.cardTitle} dir="auto">
                    {one.title}
                  </span>
                  <span className={css.meta}>
                    {one.stage && <Chip>{words(one.stage)}</Chip>}
                    {one.value !== null && <span>{money(one.value, one.currency, lang)}</span>}
                    {one.conversation_id === conversation.id && <span>{t("deal.here")}</span>}
                  </span>
                </li>
              ))}
            </ul>
          )}
        </Fetched>
      </Section>

      <Section title={t("contact.tasks")}>
        <Fetched query={tasks} none={t("contact.noTasks")}>
          {(list) => (
            <ul className={css.list}>
              {list.map((one) => (
                <li key={one.id} className={css.card}>
                  <span className={css.cardTitle} dir="auto">
                    {one.title}
                  </span>
                  <span className={css.meta}>
                    {one.completed ? (
                      <Chip tone="good">{t("contact.done")}</Chip>
                    ) : (
                      one.due_date && (
                        <Chip tone={Date.parse(one.due_date) < Date.now() ? "bad" : "plain"}>
                          {t("contact.due", { date: shortDate(one.due_date, lang) })}
                        </Chip>
                      )
                    )}
                  </span>
                </li>
              ))}
            </ul>
          )}
        </Fetched>
      </Section>

      <Section title={t("contact.notes")}>
        <Notes conversation={conversation} />
      </Section>

      <Section title={t("contact.history")}>
        <History conversation={conversation} />
      </Section>
    </div>
  );
}

function money(value: number, currency: string | null, lang: string): string {
  if (!currency || !/^[A-Z]{3}$/.test(currency)) return new Intl.NumberFormat(lang).format(value);
  return new Intl.NumberFormat(lang, { style: "currency", currency, maximumFractionDigits: 0 }).format(value);
}

/** "القاهرة، مصر": the country by its name where only its code is kept. */
function place({ city, country }: Contact, lang: string): string | null {
  const known = country && /^[A-Z]{2}$/.test(country) ? new Intl.DisplayNames(lang, { type: "region" }).of(country) : country;
  const parts = [city, known].filter((part) => part !== null && part !== undefined && part !== "");
  return parts.length > 0 ? parts.join(lang.startsWith("ar") ? "، " : ", ") : null;
}

/** A stored name as words: "closed_won" → "closed won". */
const words = (name: string): string => name.replaceAll("_", " ");

function Section({ title, action, children }: { title: string; action?: ReactNode; children: ReactNode }) {
  return (
    <section className={css.section}>
      <div className={css.sectionHead}>
        <h4 className={css.heading}>{title}</h4>
        {action}
      </div>
      {children}
    </section>
  );
}

function Fields({ contact }: { contact: Contact }) {
  const { t, i18n } = useTranslation();
  const lang = localeOf(i18n.language);
  const optIn = contact.opt_in_status === null ? null : contact.opt_in_status ? t("contact.yes") : t("contact.no");
  const known: [string, string | null][] = [
    [t("contact.lifecycle"), contact.lifecycle_stage],
    [t("contact.lead"), contact.lead_status],
    [t("contact.place"), place(contact, lang)],
    [t("contact.optIn"), optIn],
    ...Object.entries(contact.custom_fields).map(([name, value]): [string, string | null] => [
      words(name),
      value === null || value === "" ? null : typeof value === "object" ? JSON.stringify(value) : String(value),
    ]),
    [t("contact.since"), shortDate(contact.created_at, lang)],
  ];
  return (
    <Section title={t("contact.fields")}>
      <dl className={css.fields}>
        {known.map(
          ([label, value]) =>
            value !== null && (
              <div key={label} className={css.field}>
                <dt>
                  <bdi>{label}</bdi>
                </dt>
                <dd>
                  <bdi>{value}</bdi>
                </dd>
              </div>
            ),
        )}
      </dl>
      {contact.tags.length > 0 && (
        <div className={css.chips}>
          {contact.tags.map((one) => (
            <Chip key={one}>{one}</Chip>
          ))}
        </div>
      )}
    </Section>
  );
}

function Tags({ conversation }: { conversation: Conversation }) {
  const { t } = useTranslation();
  const [adding, setAdding] = useState(false);
  const [text, setText] = useState("");
  const change = (add: string[], remove: string[]) =>
    void perform("tag", { conversation_id: conversation.id, add, remove });
  const add = () => {
    const tag = text.trim();
    if (tag && !conversation.tags.includes(tag)) change([tag], []);
    setText("");
    setAdding(false);
  };
  return (
    <div className={css.chips}>
      {conversation.tags.map((one) => (
        <Chip key={one} removeLabel={t("contact.removeTag", { tag: one })} onRemove={() => change([], [one])}>
          {one}
        </Chip>
      ))}
      {adding ? (
        <TextInput
          size="xs"
          autoFocus
          dir="auto"
          value={text}
          maxLength={60}
          aria-label={t("contact.addTag")}
          className={css.tagInput}
          onChange={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter") add();
            if (event.key === "Escape") setAdding(false);
          }}
          onBlur={add}
        />
      ) : (
        <button type="button" className={css.addTag} onClick={() => setAdding(true)}>
          <Plus size={13} aria-hidden /> {t("contact.addTag")}
        </button>
      )}
    </div>
  );
}

function Notes({ conversation }: { conversation: Conversation }) {
  const { t, i18n } = useTranslation();
  const lang = localeOf(i18n.language);
  const [text, setText] = useState("");
  const client = useQueryClient();
  const notes = useQuery(notesOf(conversation.contact_id));
  const { data: profiles } = useQuery(profilesQuery);
  const me = useLive((live) => live.session?.user_id);
  const adding = useMutation({
    mutationFn: (content: string) =>
      insert("notes", note, {
        contact_id: conversation.contact_id, conversation_id: conversation.id, content,
        ...(me ? { author_id: me } : {}),
      }),
    onSuccess: () => {
      setText("");
      void client.invalidateQueries({ queryKey: notesOf(conversation.contact_id).queryKey });
    },
    onError: (error) => complain(error),
  });
  return (
    <>
      <form
        className={css.noteForm}
        onSubmit={(event) => {
          event.preventDefault();
          if (text.trim()) adding.mutate(text.trim());
        }}
      >
        <Textarea
          autosize
          minRows={2}
          maxRows={8}
          dir="auto"
          size="sm"
          value={text}
          aria-label={t("contact.noteLabel")}
          placeholder={t("contact.notePlaceholder")}
          classNames={{ input: css.noteInput }}
          onChange={(event) => setText(event.currentTarget.value)}
        />
        {text.trim() !== "" && (
          <Button type="submit" size="compact-sm" loading={adding.isPending}>
            {t("contact.addNote")}
          </Button>
        )}
      </form>
      <Fetched query={notes} none={t("contact.noNotes")}>
        {(list) => (
          <ul className={css.list}>
            {list.map((one) => (
              <li key={one.id} className={css.note}>
                <p className={css.noteText} dir="auto">
                  <RichText text={one.content} />
                </p>
                <p className={css.noteMeta}>
                  <bdi>{colleagueName(profiles?.find((who) => who.id === one.author_id), "")}</bdi>
                  <time dateTime={one.created_at}>{fullTime(one.created_at, lang)}</time>
                </p>
              </li>
            ))}
          </ul>
        )}
      </Fetched>
    </>
  );
}
