/** The two languages. English travels with the app, Arabic is fetched when it is wanted. */
import i18n from "i18next";
import { initReactI18next } from "react-i18next";
import { oneOf } from "../lib/parse";
import { load, save } from "../lib/storage";
import type account from "./account.en.json";
import en from "./en.json";
import type failures from "./failures.en.json";
import type inbox from "./inbox.en.json";
import type people from "./people.en.json";

export const LANGUAGES = ["en", "ar"] as const;
export type Language = (typeof LANGUAGES)[number];
export const languageNames: Record<Language, string> = { en: "English", ar: "العربية" };

declare module "i18next" {
  interface CustomTypeOptions {
    defaultNS: "translation";
    resources: {
      translation: typeof en; account: typeof account; failures: typeof failures; inbox: typeof inbox; people: typeof people;
    };
    returnNull: false;
  }
}

const KEY = "hub.language";

export function directionOf(language: string): "ltr" | "rtl" {
  return language === "ar" ? "rtl" : "ltr";
}

/** Latin digits in Arabic too: phone numbers, times and counters then look alike everywhere in the app. */
export function localeOf(language: string): string {
  return language === "ar" ? "ar-EG-u-nu-latn" : "en";
}

function preferred(): Language {
  const fallback = navigator.languages.some((one) => one.toLowerCase().startsWith("ar")) ? "ar" : "en";
  return load(KEY, oneOf(...LANGUAGES), fallback);
}

async function ensure(language: Language): Promise<void> {
  if (language === "ar" && !i18n.hasResourceBundle("ar", "translation")) {
    const bundle = await import("./ar.json");
    i18n.addResourceBundle("ar", "translation", bundle.default);
  }
}

function reflect(language: Language): void {
  document.documentElement.lang = language;
  document.documentElement.dir = directionOf(language);
}

export async function startLanguages(): Promise<void> {
  await i18n.use(initReactI18next).init({
    lng: "en",
    fallbackLng: "en",
    resources: { en: { translation: en } },
    // React escapes; i18next must not do it again.
    interpolation: { escapeValue: false },
    returnNull: false,
  });
  const language = preferred();
  await ensure(language);
  await i18n.changeLanguage(language);
  reflect(language);
}

export async function setLanguage(language: Language): Promise<void> {
  await ensure(language);
  await i18n.changeLanguage(language);
  reflect(language);
  save(KEY, language);
}
