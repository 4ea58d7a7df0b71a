-- Which triggers stand on which tables. Last, because it needs the functions.
-- hub_writer's set-based functions do the work of emit, place_message and queue_message themselves: a WHEN condition
-- is evaluated as the row changes, in the role that changes it, so nobody else can pass for hub_writer.

do $$
declare
  t text;
  event_tables constant text[] := array['contacts', 'companies', 'deals', 'pipelines', 'conversations', 'messages', 'tasks', 'templates', 'bot_flows',
    'automation_rules', 'campaigns', 'notes', 'channel_accounts', 'projects', 'milestones', 'organizations', 'memberships', 'teams', 'invitations', 'api_keys', 'webhooks'];
begin
  for t in select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where n.nspname = 'public' and c.relkind = 'r' order by 1
  loop
    if exists (select from pg_attribute a where a.attrelid = ('public.' || t)::regclass and a.attname = 'version' and not a.attisdropped) and t <> 'bot_flows' then
      execute format('create or replace trigger touch before update on public.%I for each row when (current_user <> ''hub_writer'') execute function app.touch()', t);
    elsif t = 'bot_flows' then
      execute format('create or replace trigger touch before update on public.%I for each row execute function app.touch_flow()', t);
    elsif exists (select from pg_attribute a where a.attrelid = ('public.' || t)::regclass and a.attname = 'updated_at' and not a.attisdropped) then
      execute format('create or replace trigger touch before update on public.%I for each row execute function app.touch_time()', t);
    end if;
    execute format('create or replace trigger keep_key before update on public.%I for each row when (current_user <> ''hub_writer'') execute function app.keep_key()', t);
    if t = any (event_tables) then
      execute format('drop trigger if exists emit on public.%I', t);
      execute format('create constraint trigger emit after insert or update or delete on public.%I deferrable initially deferred
                      for each row when (current_user <> ''hub_writer'') execute function app.emit()', t);
      execute format('create or replace trigger limit_inserts after insert on public.%I referencing new table as changed for each statement when (current_user <> ''hub_writer'') execute function app.limit_event_rows()', t);
      execute format('create or replace trigger limit_updates after update on public.%I referencing new table as changed for each statement when (current_user <> ''hub_writer'') execute function app.limit_event_rows()', t);
      execute format('create or replace trigger limit_deletes after delete on public.%I referencing old table as changed for each statement when (current_user <> ''hub_writer'') execute function app.limit_event_rows()', t);
    end if;
  end loop;
end $$;

create or replace trigger forget_events after delete on public.organizations for each row execute function app.forget_events();
create or replace trigger place before insert on public.messages for each row when (current_user <> 'hub_writer') execute function app.place_message();
create or replace trigger queue_new after insert on public.messages for each row when (new.status = 'PENDING' and new.direction = 'OUTBOUND') execute function app.queue_message();
create or replace trigger queue_again after update of status on public.messages for each row when (new.status = 'PENDING' and new.direction = 'OUTBOUND' and old.status = 'FAILED') execute function app.queue_message();
create or replace trigger status before insert or update on public.tasks for each row execute function app.task_status();
create or replace trigger closed_at before insert or update on public.conversations for each row when (current_user <> 'hub_writer') execute function app.conversation_closed_at();
create or replace trigger in_sight before insert on public.conversations for each row when (current_user <> 'hub_writer') execute function app.keep_in_sight();
create or replace trigger stages before insert or update on public.pipelines for each row execute function app.pipeline_stages();
create or replace trigger guard before insert or update on public.memberships for each row execute function app.guard_membership();
create or replace trigger flags before update of can_access_crm, can_access_pm, can_manage_team, can_manage_settings, can_send_messages, can_read_messages
  on public.memberships for each row execute function app.name_flags();
create or replace trigger keep_last_owner before delete on public.memberships for each row when (old.role = 'OWNER' and old.is_active) execute function app.keep_last_owner();
create or replace trigger ended after update of is_active on public.memberships for each row when (old.is_active and not new.is_active) execute function app.end_membership();
create or replace trigger gone after delete on public.memberships for each row execute function app.end_membership();
create or replace trigger mirror_teams after insert or delete on public.team_members for each row execute function app.mirror_teams();
create or replace trigger forget_secret after update of revoked_at on public.api_keys for each row when (new.revoked_at is not null) execute function app.forget_secret();
create or replace trigger forget_secret after update of revoked_at on public.invitations for each row when (new.revoked_at is not null) execute function app.forget_secret();
create or replace trigger checked before insert or update on public.organizations for each row execute function app.check_organization();
create or replace trigger route after insert or update on public.channel_accounts for each row execute function app.route_account();
create or replace trigger write_profile instead of update on public.profiles for each row execute function app.write_profile();
create or replace trigger mirror_new after insert on public.contacts for each row when (current_user <> 'hub_writer' and (new.phones <> '{}' or new.emails <> '{}')) execute function app.mirror_identities();
create or replace trigger mirror_changed after update of phones, emails on public.contacts for each row when (new.phones <> old.phones or new.emails <> old.emails) execute function app.mirror_identities();
create or replace trigger bury_deleted before delete on public.messages for each row when (current_user in ('authenticated', 'service_role')) execute function app.bury_message();
create or replace trigger bury before update of deleted_at on public.messages for each row when (new.deleted_at is not null and old.deleted_at is null) execute function app.bury_message();

-- What callers may not write. Named to run before the triggers that write these columns themselves.
create or replace trigger admit before insert or update on public.messages for each row when (current_user = 'authenticated') execute function app.guard_message();
create or replace trigger admit before insert or update on public.conversations for each row when (current_user = 'authenticated')
  execute function app.refuse_kept_columns('msg_seq', 'inbound_count', 'last_message_at', 'last_message_preview', 'last_message_direction',
    'first_inbound_at', 'last_inbound_at', 'waiting_since', 'first_response_at', 'closed_at', 'cause');
create or replace trigger admit before insert or update on public.contacts for each row when (current_user = 'authenticated')
  execute function app.refuse_kept_columns('merged_into_id', 'cause');
create or replace trigger admit before insert or update on public.channel_accounts for each row when (current_user = 'authenticated')
  execute function app.refuse_kept_columns('health', 'last_inbound_at', 'last_error', 'last_error_at');
create or replace trigger admit before insert or update on public.deals for each row when (current_user = 'authenticated') execute function app.refuse_kept_columns('cause');
create or replace trigger admit before insert or update on public.tasks for each row when (current_user = 'authenticated') execute function app.refuse_kept_columns('cause', 'reminded_at');
create or replace trigger admit before insert or update on public.campaigns for each row when (current_user = 'authenticated')
  execute function app.refuse_kept_columns('started_at', 'finished_at', 'recipient_count', 'forecast');
create or replace trigger admit before insert or update on public.webhooks for each row when (current_user = 'authenticated')
  execute function app.refuse_kept_columns('state', 'paused_reason', 'last_success_at', 'last_failure_at', 'secret_rotated_at');
create or replace trigger admit before insert or update on public.bot_flows for each row when (current_user = 'authenticated') execute function app.refuse_kept_columns('published_version_id');
create or replace trigger admit before insert or update on public.automation_rules for each row when (current_user = 'authenticated') execute function app.refuse_kept_columns('trigger_event', 'current_version_id', 'paused_reason');
create or replace trigger admit before insert or update on public.media_files for each row when (current_user = 'authenticated') execute function app.refuse_kept_columns('storage_key', 'sha256', 'provider_ref');
create or replace trigger admit before insert or update on public.invitations for each row when (current_user = 'authenticated') execute function app.refuse_kept_columns('accepted_at');
create or replace trigger admit_change before update on public.invitations for each row when (current_user = 'authenticated') execute function app.refuse_kept_columns('expires_at', 'email', 'invited_by');
create or replace trigger admit before update on public.memberships for each row when (current_user = 'authenticated') execute function app.refuse_kept_columns('email', 'team_ids', 'user_id');
create or replace trigger admit before update on public.api_keys for each row when (current_user = 'authenticated') execute function app.refuse_kept_columns('key_prefix', 'last_used_at', 'created_by');
create or replace trigger grants before insert or update on public.api_keys for each row when (current_user = 'authenticated') execute function app.guard_grants();
create or replace trigger grants before insert or update on public.invitations for each row when (current_user = 'authenticated') execute function app.guard_grants();

-- The audit log: a row of its own a change, except where people's daily work would fill it; there deletions alone.
do $$
declare
  t text;
  quiet text;
begin
  foreach t in array array['organizations', 'memberships', 'teams', 'team_members', 'invitations', 'api_keys', 'subscriptions', 'channel_accounts', 'webhooks',
      'templates', 'bot_flows', 'automation_rules', 'campaigns', 'pipelines', 'custom_field_definitions', 'sla_policies', 'business_hours', 'suppressions']
  loop
    quiet := case t
      when 'memberships' then '''team_ids'', ''availability'', ''preferences'''
      when 'api_keys' then '''last_used_at'''
      when 'channel_accounts' then '''health'', ''last_inbound_at'', ''last_error'', ''last_error_at'''
      when 'webhooks' then '''last_success_at'', ''last_failure_at'''
      when 'campaigns' then '''started_at'', ''finished_at'', ''forecast'''
      else '' end;
    execute format('create or replace trigger audit after insert or update or delete on public.%I for each row when (current_user <> ''hub_writer'') execute function app.audit_row(%s)', t, quiet);
  end loop;
  foreach t in array array['contacts', 'companies', 'deals', 'conversations', 'projects', 'milestones', 'tasks', 'notes'] loop
    execute format('create or replace trigger audit_deleted after delete on public.%I referencing old table as gone for each statement when (current_user <> ''hub_writer'') execute function app.audit_deleted()', t);
  end loop;
end $$;
