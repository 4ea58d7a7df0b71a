import { Switch } from "@mantine/core";
import { useTranslation } from "react-i18next";
import { setPrefs, usePrefs } from "../../app/prefs";
import { ShortcutTable } from "../../app/ShortcutSheet";
import css from "./Settings.module.css";
import { SettingsPage } from "./SettingsFrame";

export function ShortcutsPage() {
  const { t } = useTranslation();
  const singleKeys = usePrefs((prefs) => prefs.singleKeys);
  return (
    <SettingsPage title={t("settings.shortcuts")} intro={t("shortcuts.intro")}>
      <section className={css.card}>
        <Switch
          checked={singleKeys}
          onChange={(event) => setPrefs({ singleKeys: event.currentTarget.checked })}
          label={t("shortcuts.single")}
          description={t("shortcuts.singleHint")}
        />
      </section>
      <section className={css.card}>
        <ShortcutTable />
      </section>
    </SettingsPage>
  );
}
