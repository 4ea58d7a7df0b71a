import "./styles.css";
import { createRoot } from "react-dom/client";
import { startLanguages } from "../i18n";
import { PhoneApp } from "./PhoneApp";

/** The tokens follow this attribute; in the app Mantine sets it. */
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = (): void => {
  document.documentElement.dataset["mantineColorScheme"] = dark.matches ? "dark" : "light";
};
dark.addEventListener("change", follow);
follow();

const root = document.getElementById("root");
if (root) {
  void startLanguages().then(() => createRoot(root).render(<PhoneApp />));
}
