import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { configQuery } from "../../api/lists";
import { useSession } from "../../api/session";
import { CopyField } from "../../ui/CopyField";
import { markStep } from "../welcome/steps";
import { Keys } from "./Keys";
import { curls } from "./curl";
import css from "./Settings.module.css";
import { SettingsPage } from "./SettingsFrame";

export function ApiPage() {
  const { t } = useTranslation();
  const session = useSession();
  const { data: config } = useQuery(configQuery);
  useEffect(() => markStep("built"), []);
  const copy = t("common.copy");
  const copied = t("common.copied");
  const url = location.origin;
  const key = config?.anon_key ?? null;
  const [made, setMade] = useState<string | null>(null);
  const samples = curls(url, key ?? "ANON_KEY", session.status === "signed-in" ? session.email : "", made);
  return (
    <SettingsPage title={t("settings.api")} intro={t("api.intro")}>
      <section className={css.card}>
        <div>
          <p className={css.curlTitle}>{t("api.url")}</p>
          <CopyField value={url} copy={copy} copied={copied} />
        </div>
        <div>
          <p className={css.curlTitle}>{t("api.anon")}</p>
          {key ? <CopyField value={key} copy={copy} copied={copied} /> : <p className={css.hint}>{t("api.noKey")}</p>}
          <p className={css.hint}>{t("api.anonHint")}</p>
        </div>
      </section>
      <Keys made={made} onMade={setMade} />
      <section className={css.card}>
        <div>
          <h3 className={css.curlTitle}>{t("api.try")}</h3>
          <p className={css.hint}>{t("api.tryHint")}</p>
        </div>
        <div>
          <p className={css.curlTitle}>{t("api.signIn")}</p>
          <CopyField block value={samples.signIn} copy={t("api.copyCurl")} copied={copied} />
        </div>
        <div>
          <p className={css.curlTitle}>{t("api.list")}</p>
          <CopyField block value={samples.list} copy={t("api.copyCurl")} copied={copied} />
        </div>
        <div>
          <p className={css.curlTitle}>{t("api.events")}</p>
          <CopyField block value={samples.events} copy={t("api.copyCurl")} copied={copied} />
        </div>
        <div>
          <p className={css.curlTitle}>{t("api.insert")}</p>
          <CopyField block value={samples.insert} copy={t("api.copyCurl")} copied={copied} />
          {made === null && <p className={css.hint}>{t("api.insertHint")}</p>}
        </div>
      </section>
    </SettingsPage>
  );
}
