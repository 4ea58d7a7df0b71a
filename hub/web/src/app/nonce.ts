/** The nonce of this page's content security policy, for styles that libraries add at run time. */

declare global {
  var __webpack_nonce__: string | undefined;
}

const meta = document.querySelector<HTMLMetaElement>('meta[property="csp-nonce"]');

export const styleNonce = (): string => meta?.nonce ?? "";

// Read by the scroll lock beneath Mantine's dialogs.
globalThis.__webpack_nonce__ = styleNonce();
