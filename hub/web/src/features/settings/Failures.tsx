import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import { ChannelIcon } from "../../app/ChannelIcon";
import { channelsQuery } from "../../api/lists";
import { localeOf } from "../../i18n";
import "../../i18n/failures";
import { channelLabel } from "../../i18n/labels";
import { fullTime } from "../../lib/time";
import { useLive } from "../../realtime/live";
import { Chip } from "../../ui/Chip";
import css from "./Failures.module.css";
import { Listing } from "./Listing";
import settings from "./Settings.module.css";
import {
  MOST_SHOWN, MOST_TRIES, type WebhookFailure, failuresQuery, isKnownReason, outlookOf, seesFailures,
} from "./kept";

/** Signed deliveries that could not be applied, for those whom the hub shows them. */
export function Failures() {
  const { t } = useTranslation("failures");
  const sees = useLive(({ session }) => seesFailures(session));
  const failures = useQuery({ ...failuresQuery, enabled: sees });
  if (!sees) return null;
  return (
    <section className={css.section} aria-labelledby="failures" data-testid="failures">
      <div>
        <h3 className={css.heading} id="failures">
          {t("heading")}
        </h3>
        <p className={settings.hint}>{t("intro")}</p>
      </div>
      {failures.data?.length === 0 ? (
        <p className={settings.card}>{t("none")}</p>
      ) : (
        <Listing query={failures} empty={t("none")}>
          {(one) => <Failure key={one.id} one={one} readAt={failures.dataUpdatedAt} />}
        </Listing>
      )}
      {failures.data && failures.data.length >= MOST_SHOWN && (
        <p className={settings.hint}>{t("newest", { most: MOST_SHOWN })}</p>
      )}
    </section>
  );
}

function Failure({ one, readAt }: { one: WebhookFailure; readAt: number }) {
  const { t, i18n } = useTranslation("failures");
  const { t: common } = useTranslation();
  const lang = localeOf(i18n.language);
  const { data: channels } = useQuery(channelsQuery);
  const name = channels?.find(({ id }) => id === one.channel_account_id)?.name ?? channelLabel(common, one.channel);
  return (
    <li className={settings.entry} data-testid="failure">
      <ChannelIcon type={one.channel} />
      <div>
        <p className={settings.entryName}>
          <bdi>{name}</bdi>
        </p>
        <p className={settings.entrySub}>
          <bdi>
            <time dateTime={one.created_at}>{fullTime(one.created_at, lang)}</time>
          </bdi>
        </p>
      </div>
      <div className={settings.entryEnd}>
        <OutlookChip one={one} readAt={readAt} />
      </div>
      <div className={css.rest}>
        <p className={css.reason}>
          {isKnownReason(one.reason) ? t(`reason.${one.reason}`) : <code dir="ltr">{one.reason}</code>}
        </p>
        <p className={settings.entrySub}>{t("tries", { done: one.attempts, most: MOST_TRIES })}</p>
        <details className={css.details}>
          <summary>{t("details")}</summary>
          <dl>
            <dt>{t("code")}</dt>
            <dd>
              <code dir="ltr">{one.reason}</code>
            </dd>
            <dt>{t("error")}</dt>
            <dd>{one.error ? <code dir="auto">{one.error}</code> : t("noError")}</dd>
            {one.last_error !== null && (
              <>
                <dt>{t("lastError")}</dt>
                <dd>
                  <code dir="auto">{one.last_error}</code>
                </dd>
              </>
            )}
            <dt>{t("size")}</dt>
            <dd>{t("sizeHint", { count: one.bytes })}</dd>
            <dt>{t("id")}</dt>
            <dd>
              <code dir="ltr">{one.id}</code>
            </dd>
          </dl>
        </details>
      </div>
    </li>
  );
}

function OutlookChip({ one, readAt }: { one: WebhookFailure; readAt: number }) {
  const { t, i18n } = useTranslation("failures");
  const outlook = outlookOf(one, readAt);
  switch (outlook.kind) {
    case "dead":
      return <Chip tone="bad">{t("dead")}</Chip>;
    case "running":
      return <Chip>{t("running")}</Chip>;
    case "soon":
      return <Chip>{t("soon")}</Chip>;
    case "next":
      return <Chip>{t("next", { time: fullTime(outlook.at, localeOf(i18n.language)) })}</Chip>;
    default:
      return outlook satisfies never;
  }
}
