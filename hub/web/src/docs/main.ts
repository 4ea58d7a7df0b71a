/** The page `/docs`: Swagger UI over `/openapi.json`, all of it from the hub. */
import DOMPurify from "dompurify";
import SwaggerUI from "swagger-ui-dist/swagger-ui-es-bundle.js";
import "swagger-ui-dist/swagger-ui.css";
import "./docs.css";

// Swagger UI writes what it made of Markdown as text; the content security policy wants that looked at.
window.trustedTypes?.createPolicy("default", { createHTML: (html) => DOMPurify.sanitize(html) });

// The app's own setting when there is one, else the system's.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = (): void => {
  const chosen = localStorage.getItem("mantine-color-scheme-value");
  const isDark = chosen === "dark" || (chosen !== "light" && dark.matches);
  document.documentElement.classList.toggle("dark-mode", isDark);
};
dark.addEventListener("change", follow);
addEventListener("storage", follow);
follow();

SwaggerUI({
  url: "/openapi.json",
  dom_id: "#root",
  deepLinking: true,
  docExpansion: "none",
  filter: true,
  // A row of every table at the end of the page: each operation shows its own.
  defaultModelsExpandDepth: -1,
  displayRequestDuration: true,
  // Otherwise a description on a public address would be sent to a validator of others.
  validatorUrl: "none",
});
