/** The look: warm paper and ink, a pine green that only marks what can be done or has been done by us. */
import {
  ActionIcon, Button, type CSSVariablesResolver, type MantineColorsTuple, Menu, Modal, Popover, Tooltip,
  type VariantColorsResolver, createTheme, defaultVariantColorsResolver,
} from "@mantine/core";

const pine: MantineColorsTuple = [
  "#ecf6f3", "#d8ece6", "#aedacd", "#82c7b3", "#5fb69f", "#47a48c", "#2a8c75", "#157361", "#0e5d50", "#0a4a40",
];
const stone: MantineColorsTuple = [
  "#faf9f6", "#f4f2ed", "#eae7df", "#dcd8cd", "#c3beb1", "#9a968a", "#706d63", "#57544c", "#3b3933", "#22211d",
];
const night: MantineColorsTuple = [
  "#e4eae7", "#c3ccc8", "#a3afaa", "#84918c", "#4d5a55", "#37433f", "#27312e", "#1c2422", "#151b1a", "#0e1312",
];

/** Filled in our own green is the same pair of tokens everywhere: Mantine computes its contrast for one scheme only. */
const colorsOf: VariantColorsResolver = (input) => {
  const colors = defaultVariantColorsResolver(input);
  if (input.variant !== "filled" || (input.color ?? input.theme.primaryColor) !== "pine") return colors;
  return {
    ...colors,
    background: "var(--pine)",
    hover: "color-mix(in srgb, var(--pine) 88%, var(--ink))",
    color: "var(--on-pine)",
  };
};

export const theme = createTheme({
  variantColorResolver: colorsOf,
  colors: { pine, gray: stone, dark: night },
  primaryColor: "pine",
  primaryShade: { light: 8, dark: 4 },
  autoContrast: true,
  luminanceThreshold: 0.32,
  fontFamily: '"Inter Variable", "Noto Sans Arabic Variable", system-ui, sans-serif',
  fontFamilyMonospace: 'ui-monospace, "SFMono-Regular", "Cascadia Mono", Menlo, Consolas, monospace',
  fontSizes: { xs: "0.75rem", sm: "0.8125rem", md: "0.875rem", lg: "1rem", xl: "1.1875rem" },
  lineHeights: { xs: "1.4", sm: "1.45", md: "1.5", lg: "1.5", xl: "1.4" },
  headings: { fontWeight: "640", sizes: { h1: { fontSize: "1.375rem" }, h2: { fontSize: "1.0625rem" }, h3: { fontSize: "0.875rem" } } },
  radius: { xs: "4px", sm: "6px", md: "9px", lg: "14px", xl: "20px" },
  defaultRadius: "md",
  cursorType: "pointer",
  focusRing: "auto",
  respectReducedMotion: true,
  components: {
    Button: Button.extend({ defaultProps: { size: "sm", fw: 560 } }),
    ActionIcon: ActionIcon.extend({ defaultProps: { variant: "subtle", color: "gray", size: 34 } }),
    Tooltip: Tooltip.extend({ defaultProps: { openDelay: 350, withArrow: true, fz: "xs" } }),
    // Its placeholder for the first focus is a focusable child of role="menu" without a role, which axe refuses.
    Menu: Menu.extend({
      defaultProps: {
        shadow: "md", radius: "md", transitionProps: { duration: 90 }, withInitialFocusPlaceholder: false,
        returnFocus: true,
      },
    }),
    Popover: Popover.extend({ defaultProps: { shadow: "md", radius: "md" } }),
    Modal: Modal.extend({
      defaultProps: { radius: "lg", centered: true, overlayProps: { backgroundOpacity: 0.45 } },
      styles: { title: { fontWeight: 650, fontSize: "1rem" } },
    }),
  },
});

/** Mantine's own greys fail WCAG AA in several places; these come from the tokens of theme.css, which do not. */
export const variables: CSSVariablesResolver = () => {
  const shared = {
    "--mantine-color-body": "var(--surface)",
    "--mantine-color-text": "var(--ink)",
    "--mantine-color-dimmed": "var(--ink-soft)",
    "--mantine-color-placeholder": "var(--ink-faint)",
    "--mantine-color-error": "var(--bad)",
    "--mantine-color-default": "var(--surface)",
    "--mantine-color-default-hover": "var(--hover)",
    "--mantine-color-default-color": "var(--ink)",
    "--mantine-color-default-border": "var(--line-strong)",
    "--mantine-color-anchor": "var(--pine-ink)",
    "--mantine-color-gray-light-color": "var(--ink-soft)",
    "--mantine-color-gray-text": "var(--ink-soft)",
    "--mantine-color-gray-light-hover": "var(--hover)",
  };
  return { variables: {}, light: shared, dark: shared };
};
