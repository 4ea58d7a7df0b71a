/** The texts of files, templates and notes: they come with the inbox, not with the app. */
import i18n from "i18next";
import ar from "./inbox.ar.json";
import en from "./inbox.en.json";

i18n.addResourceBundle("en", "inbox", en);
i18n.addResourceBundle("ar", "inbox", ar);
