import react from "@vitejs/plugin-react";
import { resolve } from "node:path";
import { defineConfig } from "vite";

const hub = process.env["HUB_DEV_TARGET"] ?? "http://127.0.0.1:8080";
const here = import.meta.dirname;

export default defineConfig({
  plugins: [react()],
  // The hub replaces this placeholder in index.html by the nonce of each answer's content security policy.
  html: { cspNonce: "__CSP_NONCE__" },
  build: {
    manifest: "manifest.json",
    target: "baseline-widely-available",
    // The browser would fetch them as data: addresses, which the content security policy does not allow.
    assetsInlineLimit: 0,
    // A test over the manifest keeps the compressed budgets; the raw-size warning says nothing beside it (docs.html is 1.6 MB raw).
    chunkSizeWarningLimit: 2000,
    rolldownOptions: { input: { app: resolve(here, "index.html"), phone: resolve(here, "phone.html"), docs: resolve(here, "docs.html") } },
  },
  server: {
    proxy: {
      "^/(auth|rest|functions|config.json|openapi.json|healthz|readyz)": { target: hub },
      "/ws": { target: hub, ws: true, rewriteWsOrigin: true },
    },
  },
});
