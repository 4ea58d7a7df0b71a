import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { historyOf } from "../../api/lists";
import type { Conversation } from "../../api/models";
import { localeOf } from "../../i18n";
import { fullTime, shortDate } from "../../lib/time";
import { useLive } from "../../realtime/live";
import { Chip } from "../../ui/Chip";
import { previewOf } from "../../i18n/labels";
import { Fetched } from "./Fetched";
import css from "./ContactPanel.module.css";
import { earlierTalks } from "./talks";

/** The customer's other conversations, newest first. */
export function History({ conversation }: { conversation: Conversation }) {
  const { t, i18n } = useTranslation();
  const lang = localeOf(i18n.language);
  const stored = useQuery(historyOf(conversation.contact_id));
  const live = useLive(({ inbox }) => inbox.conversations);
  const { contact_id: contactId, id } = conversation;
  const talks = useMemo(() => earlierTalks(stored.data, live, contactId, id), [stored.data, live, contactId, id]);
  return (
    <Fetched query={stored.data ? { data: talks, error: null } : stored} none={t("contact.noHistory")}>
      {(list) => (
        <ul className={css.list}>
          {list.map((one) => {
            const at = one.last_message_at ?? one.created_at;
            return (
              <li key={one.id}>
                <Link
                  to="/inbox/$conversationId"
                  from="/inbox"
                  params={{ conversationId: one.id }}
                  search={(old) => old}
                  className={css.talk}
                >
                  <span className={css.talkText} dir="auto">
                    {previewOf(t, one.last_message_preview)}
                  </span>
                  <span className={css.meta}>
                    <Chip tone={one.status === "OPEN" ? "good" : "plain"}>
                      {one.status === "OPEN" ? t("contact.open") : t("contact.closed")}
                    </Chip>
                    <time dateTime={at} title={fullTime(at, lang)}>
                      {shortDate(at, lang)}
                    </time>
                  </span>
                </Link>
              </li>
            );
          })}
        </ul>
      )}
    </Fetched>
  );
}
