import { SegmentedControl, Switch, useMantineColorScheme } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { setPrefs, usePrefs } from "../../app/prefs";
import { LANGUAGES, languageNames, setLanguage } from "../../i18n";
import css from "./Settings.module.css";
import { SettingsPage } from "./SettingsFrame";

export function AppearancePage() {
  const { t, i18n } = useTranslation();
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  const density = usePrefs((prefs) => prefs.density);
  const notices = usePrefs((prefs) => prefs.notices);
  const able = "Notification" in window;
  const [refused, setRefused] = useState(able && Notification.permission === "denied");
  const setNotices = async (on: boolean) => {
    if (!on) {
      setPrefs({ notices: false });
      return;
    }
    const answer = await Notification.requestPermission();
    setRefused(answer === "denied");
    setPrefs({ notices: answer === "granted" });
  };
  return (
    <SettingsPage title={t("settings.appearance")} intro={t("appearance.intro")}>
      <section className={css.card}>
        <div className={css.row}>
          <span className={css.label} id="theme-label">
            {t("appearance.theme")}
          </span>
          <SegmentedControl
            aria-labelledby="theme-label"
            value={colorScheme}
            onChange={(value) => setColorScheme(value)}
            data={[
              { value: "light", label: t("appearance.light") },
              { value: "dark", label: t("appearance.dark") },
              { value: "auto", label: t("appearance.auto") },
            ]}
          />
        </div>
        <div className={css.row}>
          <span className={css.label} id="language-label">
            {t("appearance.language")}
          </span>
          <SegmentedControl
            aria-labelledby="language-label"
            value={i18n.language === "ar" ? "ar" : "en"}
            onChange={(value) => void setLanguage(value)}
            data={LANGUAGES.map((one) => ({ value: one, label: <span lang={one}>{languageNames[one]}</span> }))}
          />
        </div>
        <div className={css.row}>
          <span className={css.label} id="density-label">
            {t("appearance.density")}
          </span>
          <SegmentedControl
            aria-labelledby="density-label"
            value={density}
            onChange={(value) => setPrefs({ density: value })}
            data={[
              { value: "cosy", label: t("appearance.cosy") },
              { value: "compact", label: t("appearance.compact") },
            ]}
          />
        </div>
        <div className={css.row}>
          <Switch
            checked={notices && able && !refused}
            disabled={!able || refused}
            onChange={(event) => void setNotices(event.currentTarget.checked)}
            label={t("appearance.notices")}
            description={refused || !able ? t("appearance.noticesRefused") : t("appearance.noticesHint")}
          />
        </div>
      </section>
    </SettingsPage>
  );
}
