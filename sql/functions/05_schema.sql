-- What the runtime may know of the schema's version.
create or replace function app.schema_version() returns table (name text)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$ select m.name from app.schema_migrations m $$;

-- The hub refuses a server that would lose acknowledged work (guarantees G2).
create or replace function app.durability() returns table (setting text, value text)
  language sql stable
  as $$ select s, current_setting(s) from unnest(array['fsync', 'full_page_writes', 'synchronous_commit', 'data_checksums']) s $$;
