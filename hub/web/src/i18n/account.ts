/** The texts of invitations, recovery and security: they come with their pages, not with the app. */
import i18n from "i18next";
import ar from "./account.ar.json";
import en from "./account.en.json";

i18n.addResourceBundle("en", "account", en);
i18n.addResourceBundle("ar", "account", ar);
