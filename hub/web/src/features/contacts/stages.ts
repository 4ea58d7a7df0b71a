/** The stages of a pipeline, which are data of each organization. Pure. */
import type { Pipeline } from "../../api/models";
import { isRecord } from "../../lib/parse";

export interface Stage {
  id: string;
  name: string;
}

const text = (value: unknown): string | null => (typeof value === "string" && value !== "" ? value : null);

/** In their order; a stage may be a word or an object with id and name. What is neither is left out. */
export function stagesOf(pipeline: Pipeline | undefined): Stage[] {
  return (pipeline?.stages ?? []).flatMap((one): Stage[] => {
    const word = text(one);
    if (word !== null) return [{ id: word, name: word }];
    if (!isRecord(one)) return [];
    const id = text(one["id"]) ?? text(one["name"]);
    return id === null ? [] : [{ id, name: text(one["name"]) ?? id }];
  });
}

/** The one that new deals go to: the default, else the first that was made. */
export function defaultPipeline(pipelines: readonly Pipeline[]): Pipeline | undefined {
  return pipelines.find((one) => one.is_default) ?? pipelines[0];
}
