/** The texts of team, keys, organizations and audit log: they come with the settings, not with the app. */
import i18n from "i18next";
import ar from "./people.ar.json";
import en from "./people.en.json";

i18n.addResourceBundle("en", "people", en);
i18n.addResourceBundle("ar", "people", ar);
