import "./trusted";
import "./nonce";
import "./styles.css";
import { createRoot } from "react-dom/client";
import { startLanguages } from "../i18n";
import { App } from "./App";

const root = document.getElementById("root");
if (root) {
  void startLanguages().then(() => createRoot(root).render(<App />));
}
