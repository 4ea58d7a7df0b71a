/** Lists read over REST as queries. Their keys name the table, so that events can mark them as old. */
import { queryOptions } from "@tanstack/react-query";
import type { Parser } from "../lib/parse";
import { fetchConfig } from "./config";
import {
  type TableName, channelAccount, contactIdentity, conversation, deal, note, organization, pipeline,
  profile, task, template,
} from "./models";
import { type Filters, rows } from "./rest";

function listOf<T>(table: TableName, parser: Parser<T>, filters: Filters) {
  return queryOptions({
    queryKey: ["rest", table, filters] as const,
    queryFn: ({ signal }) => rows(table, parser, filters, signal),
  });
}

export const configQuery = queryOptions({ queryKey: ["config"], queryFn: fetchConfig, staleTime: Infinity });
export const profilesQuery = listOf("profiles", profile, { order: "first_name" });
export const channelsQuery = listOf("channel_accounts", channelAccount, { order: "name" });
export const quickRepliesQuery = listOf("templates", template, { category: "eq.QUICK_REPLY", order: "name" });
export const templatesQuery = listOf("templates", template, {
  category: "neq.QUICK_REPLY", status: "eq.APPROVED", order: "name",
});
export const pipelinesQuery = listOf("pipelines", pipeline, { order: "created_at" });
export const organizationQuery = listOf("organizations", organization, {});
export const identitiesOf = (contactId: string) =>
  listOf("contact_identities", contactIdentity, { contact_id: `eq.${contactId}` });
export const notesOf = (contactId: string) =>
  listOf("notes", note, { contact_id: `eq.${contactId}`, order: "created_at.desc", limit: "20" });
/** Newest last, as a thread reads. */
export const notesIn = (conversationId: string) =>
  listOf("notes", note, { conversation_id: `eq.${conversationId}`, order: "created_at.desc", limit: "200" });
export const tasksOf = (contactId: string) =>
  listOf("tasks", task, { contact_id: `eq.${contactId}`, order: "due_date", limit: "20" });
export const dealsOf = (contactId: string) =>
  listOf("deals", deal, { contact_id: `eq.${contactId}`, order: "created_at.desc", limit: "20" });
/** Not under "rest": every message changes a conversation, and the live inbox already knows those that move. */
export const historyOf = (contactId: string) =>
  queryOptions({
    queryKey: ["history", contactId] as const,
    queryFn: ({ signal }) =>
      rows("conversations", conversation, {
        contact_id: `eq.${contactId}`, order: "last_message_at.desc.nullslast", limit: "20",
      }, signal),
  });
