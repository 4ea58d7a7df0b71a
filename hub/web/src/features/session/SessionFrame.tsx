import { Button } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Check, Languages } from "lucide-react";
import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { configQuery } from "../../api/lists";
import { setLanguage } from "../../i18n";
import css from "./SignInPage.module.css";

/** What stands around the forms of people who are not in yet. */
export function SessionFrame({ title, children }: { title: string; children: ReactNode }) {
  const { t, i18n } = useTranslation();
  const config = useQuery(configQuery);
  return (
    <main className={css.page}>
      <section className={css.story} aria-hidden>
        <div className={css.demoThread}>
          <span className={css.demoIn} />
          <span className={css.demoOut} />
          <span className={css.demoInShort} />
          <span className={css.demoOutShort} />
        </div>
        <p className={css.tagline}>{t("signIn.tagline")}</p>
        <ul className={css.points}>
          {[t("signIn.point1"), t("signIn.point2"), t("signIn.point3")].map((point) => (
            <li key={point}>
              <Check size={16} aria-hidden /> {point}
            </li>
          ))}
        </ul>
      </section>
      <section className={css.side}>
        <div className={css.form}>
          <p className={css.brand}>{config.data?.name ?? t("app.name")}</p>
          <h1 className={css.title}>{title}</h1>
          {children}
        </div>
        <Button
          variant="subtle"
          color="gray"
          leftSection={<Languages size={16} />}
          className={css.language}
          onClick={() => void setLanguage(i18n.language === "ar" ? "en" : "ar")}
        >
          {t("palette.toggleLanguage")}
        </Button>
      </section>
    </main>
  );
}
