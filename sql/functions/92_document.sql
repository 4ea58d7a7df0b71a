-- What the API document's tables work out for themselves (requirements C-01, C-24, C-27, C-28).

-- The dotted events that a rule's trigger_type means, with commas between; NULL for none of ours. The document's upper-case
-- spellings stand beside the dotted ones; MESSAGE_CREATED is every message, received or sent.
create or replace function app.trigger_event(trigger_type text) returns text
  language sql immutable parallel safe
  as $$
    select case
      when trigger_type = 'MESSAGE_CREATED' then 'message.received,message.sent'
      else (select n from unnest(array['message.received', 'message.sent', 'message.delivered', 'message.read', 'message.failed',
              'contact.created', 'contact.updated', 'contact.assigned', 'deal.created', 'deal.updated', 'deal.stage.changed', 'deal.assigned',
              'conversation.created', 'conversation.assigned', 'conversation.status.changed',
              'task.created', 'task.updated', 'task.assigned', 'task.completed', 'task.due']) n
             where trigger_type in (n, upper(replace(n, '.', '_')))) end
  $$;

-- trigger_type stays as it was written.
create or replace function app.rule_trigger() returns trigger
  language plpgsql
  as $$
  begin
    new.trigger_event := app.trigger_event(new.trigger_type);
    if new.trigger_event is null then
      raise exception using errcode = '23514', message = 'trigger_type is no event that a rule can wait for',
        constraint = 'automation_rules_trigger_type_check', table = 'automation_rules';
    end if;
    return new;
  end $$;

-- A moment as people write it: with an offset it is one; without, it is a time of day in `zone`, or in the organization's. A time
-- that the clocks leave out is the first minute after the gap.
create or replace function app.moment(given text, zone text) returns timestamptz
  language plpgsql stable
  as $$
  declare
    place text;
    local timestamp;
    at timestamptz;
  begin
    if given !~ '^\s*\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?\s*$' then
      return given::timestamptz;
    end if;
    place := coalesce(zone, (select o.timezone from public.organizations o where o.id = (select app.org())), 'UTC');
    local := given::timestamp;
    at := local at time zone place;
    if at at time zone place <> local then
      local := date_trunc('minute', local);
      for n in 1 .. 1440 loop
        local := local + interval '1 minute';
        at := local at time zone place;
        exit when at at time zone place = local;
      end loop;
    end if;
    return at;
  end $$;
grant execute on function app.moment(text, text), app.trigger_event(text) to authenticated, service_role;

-- A template that the provider knows has the provider's status.
create or replace function app.guard_template() returns trigger
  language plpgsql
  as $$
  begin
    if row(new.status, new.provider_id, new.rejection_reason) is distinct from row(old.status, old.provider_id, old.rejection_reason) then
      raise exception using errcode = '42501', message = 'The provider decides the status of this template; it cannot be written here';
    end if;
    return new;
  end $$;

-- A flow's version counts what was published and nothing else.
create or replace function app.keep_flow_version() returns trigger
  language plpgsql
  as $$ begin new.version := case when tg_op = 'UPDATE' then old.version else 1 end; return new; end $$;

-- Saying PUBLISHED freezes what the flow is now; saying it again of the same flow changes nothing.
create or replace function app.publish_flow() returns trigger
  language plpgsql
  as $$
  declare
    last public.flow_versions;
  begin
    if new.status = 'PUBLISHED' then
      select * into last from public.flow_versions v
       where v.organization_id = new.organization_id and v.flow_id = new.id order by v.number desc limit 1;
      if last.id is null or last.nodes <> new.nodes or last.edges <> new.edges then
        insert into public.flow_versions (organization_id, flow_id, number, nodes, edges, published_by)
        values (new.organization_id, new.id, coalesce(last.number, 0) + 1, new.nodes, new.edges,
                (select m.user_id from public.memberships m where m.organization_id = new.organization_id and m.user_id = app.current_user_id()))
        returning * into last;
      end if;
      new.published_version_id := last.id;
      new.version := last.number;
    end if;
    return new;
  end $$;

-- A flow that is published as it is made: its version refers to it, so it must be there first.
create or replace function app.publish_new_flow() returns trigger
  language plpgsql
  as $$
  begin
    update public.bot_flows f set status = 'PUBLISHED' where f.organization_id = new.organization_id and f.id = new.id;
    return null;
  end $$;

create or replace trigger trigger_event before insert or update of trigger_type on public.automation_rules
  for each row execute function app.rule_trigger();
create or replace trigger admit before update on public.templates
  for each row when (current_user = 'authenticated' and old.provider_id is not null) execute function app.guard_template();
create or replace trigger keep_version before insert or update on public.bot_flows
  for each row execute function app.keep_flow_version();
create or replace trigger publish before update of status on public.bot_flows
  for each row execute function app.publish_flow();
create or replace trigger publish_new after insert on public.bot_flows
  for each row when (new.status = 'PUBLISHED') execute function app.publish_new_flow();
