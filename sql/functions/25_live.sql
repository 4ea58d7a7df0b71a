-- What live sessions ask every few seconds, for all sockets of a process at once. Says of each caller whether the sign-in
-- (session or key) stands, whether the member is active, and a fingerprint of what it may do: a text that moves when that does.
create or replace function app.live_standing(kinds text[], sessions uuid[], subjects uuid[], orgs uuid[])
  returns table (n bigint, stands boolean, active boolean, fingerprint text)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select c.n,
           case c.kind
             when 'key' then exists (select from public.api_keys k where k.organization_id = c.org and k.id = c.subject
                                        and k.revoked_at is null and (k.expires_at is null or k.expires_at > now()))
             else (not exists (select from auth.sessions s where s.id = c.session and s.revoked_at is not null)   -- a disabled member's have ended; `active` says why
                   or exists (select from public.memberships m where m.organization_id = c.org and m.user_id = c.subject and not m.is_active))
                  and (c.session is null or exists (select from auth.sessions s where s.id = c.session))
                  and not exists (select from auth.users u where u.id = c.subject and u.banned_until > now())
           end,
           c.kind = 'key' or exists (select from public.memberships m where m.organization_id = c.org and m.user_id = c.subject and m.is_active),
           case c.kind
             when 'key' then (select k.permissions::text from public.api_keys k where k.organization_id = c.org and k.id = c.subject)
             else coalesce((select concat_ws(',', m.role, m.can_access_crm, m.can_access_pm, m.can_manage_team, m.can_manage_settings,
                                             m.can_send_messages, m.can_read_messages, m.visibility, m.team_ids)
                              from public.memberships m where m.organization_id = c.org and m.user_id = c.subject), 'none')
                  || '@' || coalesce((select s.organization_id::text from auth.sessions s where s.id = c.session), '')
           end
      from unnest(kinds, sessions, subjects, orgs) with ordinality c (kind, session, subject, org, n)
  $$;
