/** The page's policy forbids text in HTML sinks. Mantine writes its variables as the inner text of <style> elements,
 * which is such a sink; text without `<` cannot make an element, so that, and nothing else, is let through. */

interface TrustedTypes {
  createPolicy(name: string, rules: { createHTML(text: string): string }): unknown;
}

declare global {
  interface Window {
    readonly trustedTypes?: TrustedTypes;
  }
}

window.trustedTypes?.createPolicy("default", {
  createHTML(text) {
    if (text.includes("<")) throw new TypeError("HTML from text is not allowed here.");
    return text;
  },
});

export {};
