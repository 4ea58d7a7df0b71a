-- Schemas and the pure functions that table definitions need.
-- The roles (hub_owner, hub_writer, hub_runtime, anon, authenticated, service_role) are made by
-- hub/db/migrate.py before this file runs, because roles belong to the server, not to one database.

create schema if not exists app;
create schema auth;
revoke create on schema public from public;

grant usage on schema public to anon, authenticated, service_role;
grant usage on schema app, auth to anon, authenticated, service_role, hub_runtime, hub_writer;
grant usage on schema public to hub_writer;
grant create on schema app to hub_writer;

-- Who is calling: one JSON document, transaction-local, set by the door (hub/db/tenancy.py).
-- After a transaction a custom setting reads '' and not NULL, hence nullif.
create function app.ctx() returns jsonb
  language sql stable parallel safe
  as $$ select nullif(current_setting('hub.ctx', true), '')::jsonb $$;

-- The caller's organization; NULL (and so no rows anywhere) when nobody said who is calling.
create function app.org() returns uuid
  language sql stable parallel safe
  as $$ select (nullif(current_setting('hub.ctx', true), '')::jsonb ->> 'org')::uuid $$;

create function app.current_user_id() returns uuid
  language sql stable parallel safe
  as $$ select (nullif(current_setting('hub.ctx', true), '')::jsonb ->> 'user')::uuid $$;

-- True when the caller holds any of these permissions.
create function app.may_any(permissions text[]) returns boolean
  language sql stable parallel safe
  as $$ select coalesce(nullif(current_setting('hub.ctx', true), '')::jsonb -> 'permissions' ?| permissions, false) $$;

create function app.role_in(roles text[]) returns boolean
  language sql stable parallel safe
  as $$ select coalesce((nullif(current_setting('hub.ctx', true), '')::jsonb ->> 'role') = any (roles), false) $$;

-- Which conversations the caller sees: all, unless his membership says less (`sees`: team or mine). Keys, workers and the operator
-- see all.
create function app.sees_all() returns boolean
  language sql stable parallel safe
  as $$ select not coalesce(nullif(current_setting('hub.ctx', true), '')::jsonb ? 'sees', false) $$;

create function app.my_teams() returns uuid[]
  language sql stable parallel safe
  as $$ select array(select jsonb_array_elements_text(nullif(current_setting('hub.ctx', true), '')::jsonb -> 'teams')::uuid) $$;

-- Text as people search it: lower case; Arabic letter variants, tatweel and harakat folded; Arabic digits as ASCII.
create function app.fold(t text) returns text
  language sql immutable parallel safe strict
  as $$
    select lower(translate(regexp_replace(t, '[\u0640\u064B-\u0652\u0670]', '', 'g'),
                           'أإآٱىة٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹', 'اااايه01234567890123456789'))
  $$;

create function app.contact_search(first_name text, last_name text, phones text[], emails text[], tags text[])
  returns text
  language sql immutable parallel safe
  as $$
    select app.fold(concat_ws(' ', first_name, last_name, first_name,
                              array_to_string(phones, ' '), array_to_string(emails, ' '), array_to_string(tags, ' ')))
  $$;

-- What Supabase's policies and functions call; kept so that people's own SQL moves over unchanged.
create function auth.jwt() returns jsonb
  language sql stable parallel safe
  as $$ select coalesce(nullif(current_setting('request.jwt.claims', true), ''), '{}')::jsonb $$;
create function auth.uid() returns uuid
  language sql stable parallel safe as $$ select (auth.jwt() ->> 'sub')::uuid $$;
create function auth.role() returns text
  language sql stable parallel safe as $$ select auth.jwt() ->> 'role' $$;
create function auth.email() returns text
  language sql stable parallel safe as $$ select auth.jwt() ->> 'email' $$;
