/** The texts of kept deliveries: few members ever read them, so they come with the settings, not with the app. */
import i18n from "i18next";
import ar from "./failures.ar.json";
import en from "./failures.en.json";

i18n.addResourceBundle("en", "failures", en);
i18n.addResourceBundle("ar", "failures", ar);
