/** Approved templates: which a conversation may use, what they ask for, what they will say. Pure. */
import type { Template } from "../../api/models";
import { isRecord } from "../../lib/parse";
import { matches } from "../../lib/text";

const VARIABLE = /\{\{\s*([\p{L}\p{N}_]+)\s*\}\}/gu;

export interface Variable {
  name: string;
  /** What the business gave the provider as an example. */
  example: string;
}

export interface TemplateText {
  header: string;
  body: string;
  footer: string;
  buttons: readonly string[];
}

const text = (value: unknown): string => (typeof value === "string" ? value : "");
const kindOfPart = (part: Record<string, unknown>): string => text(part["type"]).toUpperCase();

export function textOf(template: Template): TemplateText {
  const found = { header: "", body: "", footer: "", buttons: [] as string[] };
  for (const part of template.components) {
    switch (kindOfPart(part)) {
      case "HEADER":
        found.header = text(part["text"]);
        break;
      case "BODY":
        found.body = text(part["text"]);
        break;
      case "FOOTER":
        found.footer = text(part["text"]);
        break;
      case "BUTTONS":
        for (const one of Array.isArray(part["buttons"]) ? part["buttons"] : []) {
          if (isRecord(one) && typeof one["text"] === "string") found.buttons.push(one["text"]);
        }
        break;
      default:
        break;
    }
  }
  return found;
}

/** Examples of the body by name, or in order of the positions. */
function examplesOf(template: Template): Map<string, string> {
  const found = new Map<string, string>();
  for (const part of template.components) {
    const example = isRecord(part["example"]) ? part["example"] : {};
    const rows = Array.isArray(example["body_text"]) ? example["body_text"] : [];
    const [first] = rows;
    const values: unknown[] = Array.isArray(first) ? first : rows;
    values.forEach((value, index) => found.set(String(index + 1), text(value)));
    const named = Array.isArray(example["body_text_named_params"]) ? example["body_text_named_params"] : [];
    for (const one of named) if (isRecord(one)) found.set(text(one["param_name"]), text(one["example"]));
  }
  return found;
}

/** What has to be filled in, in the order it is read. */
export function variablesOf(template: Template): Variable[] {
  const { header, body } = textOf(template);
  const examples = examplesOf(template);
  const names = new Set(Array.from(`${header}\n${body}`.matchAll(VARIABLE), (match) => match[1] ?? ""));
  return [...names].map((name) => ({ name, example: examples.get(name) ?? "" }));
}

export function fill(words: string, values: Readonly<Record<string, string>>): string {
  return words.replace(VARIABLE, (whole, name: string) => values[name]?.trim() || whole);
}

/** Those that the conversation's account may send, by name. */
export function usable(templates: readonly Template[], account: string | null): Template[] {
  return templates.filter(
    (one) =>
      one.category !== "QUICK_REPLY" && one.status === "APPROVED" && textOf(one).body !== "" &&
      (one.channel_account_id === null || one.channel_account_id === account),
  );
}

export function search(templates: readonly Template[], words: string): Template[] {
  return templates.filter((one) => matches(`${one.name.replaceAll("_", " ")} ${one.name} ${textOf(one).body}`, words));
}

/** First values: what is known of the customer, where a variable is called like it. */
export function firstValues(variables: readonly Variable[], known: ReadonlyMap<string, string>): Record<string, string> {
  return Object.fromEntries(variables.map(({ name }) => [name, known.get(name.toLowerCase()) ?? ""]));
}
