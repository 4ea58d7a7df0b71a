/** The rows of /rest/v1 that the app reads: each parser names exactly the columns that are asked for. */
import {
  type Parsed, bool, list, nullable, num, object, oneOf, oneOfOr, record, str, unknown, withDefault,
} from "../lib/parse";

export const conversation = object({
  id: str,
  contact_id: str,
  channel_account_id: nullable(str),
  assignee_id: nullable(str),
  status: oneOf("OPEN", "CLOSED"),
  tags: withDefault(list(str), []),
  last_message_at: nullable(str),
  msg_seq: withDefault(num, 0),
  inbound_count: withDefault(num, 0),
  last_message_preview: nullable(str),
  last_message_direction: nullable(oneOf("INBOUND", "OUTBOUND")),
  last_inbound_at: nullable(str),
  closed_at: nullable(str),
  version: num,
  created_at: str,
});
export type Conversation = Parsed<typeof conversation>;

export const MESSAGE_STATES = ["PENDING", "SENT", "DELIVERED", "READ", "FAILED", "RECEIVED"] as const;

export const message = object({
  id: str,
  conversation_id: str,
  sender_id: nullable(str),
  direction: oneOf("INBOUND", "OUTBOUND"),
  content: withDefault(str, ""),
  status: oneOf(...MESSAGE_STATES),
  message_type: withDefault(str, "text"),
  metadata: withDefault(record, {}),
  client_ref: nullable(str),
  conv_seq: withDefault(num, 0),
  occurred_at: nullable(str),
  source: oneOfOr("external", "agent", "api", "rule", "flow", "campaign", "external", "customer"),
  reply_to_id: nullable(str),
  failure_code: nullable(str),
  failure_reason: nullable(str),
  deleted_at: nullable(str),
  version: num,
  created_at: str,
});
export type Message = Parsed<typeof message>;
export type MessageStatus = Message["status"];

export const conversationRead = object({
  user_id: str,
  conversation_id: str,
  conv_seq: withDefault(num, 0),
  inbound_count: withDefault(num, 0),
});
export type ConversationRead = Parsed<typeof conversationRead>;

export const contact = object({
  id: str,
  first_name: nullable(str),
  last_name: nullable(str),
  phones: withDefault(list(str), []),
  emails: withDefault(list(str), []),
  tags: withDefault(list(str), []),
  custom_fields: withDefault(record, {}),
  opt_in_status: nullable(bool),
  job_title: nullable(str),
  lead_status: nullable(str),
  lifecycle_stage: nullable(str),
  city: nullable(str),
  country: nullable(str),
  version: num,
  created_at: str,
});
export type Contact = Parsed<typeof contact>;

export const contactIdentity = object({
  id: str,
  contact_id: str,
  scheme: str,
  value: str,
  display_name: nullable(str),
});
export type ContactIdentity = Parsed<typeof contactIdentity>;

export const channelAccount = object({
  id: str,
  name: nullable(str),
  type: str,
  is_active: withDefault(bool, true),
  health: oneOfOr("unknown", "unknown", "ok", "degraded", "error"),
  last_inbound_at: nullable(str),
  last_error: nullable(str),
});
export type ChannelAccount = Parsed<typeof channelAccount>;

export const profile = object({
  id: str,
  role: str,
  first_name: nullable(str),
  last_name: nullable(str),
  email: nullable(str),
  is_active: withDefault(bool, true),
});
export type Profile = Parsed<typeof profile>;

export const template = object({
  id: str,
  name: str,
  components: withDefault(list(record), []),
  category: nullable(str),
  status: nullable(str),
  language: nullable(str),
  channel_account_id: nullable(str),
});
export type Template = Parsed<typeof template>;

export const note = object({
  id: str,
  author_id: nullable(str),
  content: withDefault(str, ""),
  created_at: str,
});
export type Note = Parsed<typeof note>;

export const task = object({
  id: str,
  title: withDefault(str, ""),
  due_date: nullable(str),
  completed: withDefault(bool, false),
  status: nullable(str),
});
export type Task = Parsed<typeof task>;

export const deal = object({
  id: str,
  title: withDefault(str, ""),
  stage: nullable(str),
  value: nullable(num),
  currency: nullable(str),
  conversation_id: nullable(str),
});
export type Deal = Parsed<typeof deal>;

export const pipeline = object({
  id: str,
  name: str,
  stages: withDefault(list(unknown), []),
  is_default: withDefault(bool, false),
});
export type Pipeline = Parsed<typeof pipeline>;

export const organization = object({ id: str, currency: nullable(str) });

export const auditEntry = object({
  id: str,
  at: str,
  actor_kind: str,
  actor_id: nullable(str),
  action: str,
  target_table: nullable(str),
  target_id: nullable(str),
  details: withDefault(record, {}),
  ip: nullable(str),
  request_id: nullable(str),
});
export type AuditEntry = Parsed<typeof auditEntry>;

const columnNames = {
  audit_log: "id,at,actor_kind,actor_id,action,target_table,target_id,details,ip,request_id",
  conversations:
    "id,contact_id,channel_account_id,assignee_id,status,tags,last_message_at,msg_seq,inbound_count,last_message_preview,last_message_direction,last_inbound_at,closed_at,version,created_at",
  messages:
    "id,conversation_id,sender_id,direction,content,status,message_type,metadata,client_ref,conv_seq,occurred_at,source,reply_to_id,failure_code,failure_reason,deleted_at,version,created_at",
  conversation_reads: "user_id,conversation_id,conv_seq,inbound_count",
  contacts:
    "id,first_name,last_name,phones,emails,tags,custom_fields,opt_in_status,job_title,lead_status,lifecycle_stage,city,country,version,created_at",
  contact_identities: "id,contact_id,scheme,value,display_name",
  channel_accounts: "id,name,type,is_active,health,last_inbound_at,last_error",
  profiles: "id,role,first_name,last_name,email,is_active",
  templates: "id,name,components,category,status,language,channel_account_id",
  notes: "id,author_id,content,created_at",
  tasks: "id,title,due_date,completed,status",
  deals: "id,title,stage,value,currency,conversation_id",
  pipelines: "id,name,stages,is_default",
  organizations: "id,currency",
} as const;
export type TableName = keyof typeof columnNames;
export const columns: Record<TableName, string> = columnNames;
