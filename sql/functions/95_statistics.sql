-- What the planner believes of tables that were never analyzed. Without this it takes one organization's rows for a
-- handful, picks any index that starts with organization_id, keeps that plan in every session, and batches grow
-- eightfold within 4,000 messages (measured). ANALYZE replaces these figures later, but keeps n_distinct.
do $$
declare
  t record;
begin
  for t in select n.nspname, c.relname, c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
            join pg_attribute a on a.attrelid = c.oid and a.attname = 'organization_id' and not a.attisdropped
            where n.nspname in ('public', 'app') and c.relkind = 'r'
  loop
    execute format('alter table %I.%I alter column organization_id set (n_distinct = -0.02)', t.nspname, t.relname);
    if not exists (select from pg_stats s where s.schemaname = t.nspname and s.tablename = t.relname and s.attname = 'organization_id') then
      perform pg_restore_attribute_stats('schemaname', t.nspname::text, 'relname', t.relname::text, 'attname', 'organization_id',
        'inherited', false, 'null_frac', 0::real, 'avg_width', 16, 'n_distinct', (-0.02)::real);
    end if;
  end loop;
  -- and of the columns that look-ups go by
  for t in select * from (values ('contact_identities', 'contact_id', 16, -0.9), ('contact_identities', 'value', 16, -1.0),
                                 ('conversations', 'contact_id', 16, -0.9), ('conversations', 'id', 16, -1.0),
                                 ('messages', 'conversation_id', 16, -0.1), ('messages', 'provider_message_id', 64, -1.0), ('messages', 'id', 16, -1.0),
                                 ('contacts', 'id', 16, -1.0)) c (relname, attname, width, n)
  loop
    if not exists (select from pg_stats s where s.schemaname = 'public' and s.tablename = t.relname and s.attname = t.attname) then
      perform pg_restore_attribute_stats('schemaname', 'public', 'relname', t.relname::text, 'attname', t.attname::text,
        'inherited', false, 'null_frac', 0::real, 'avg_width', t.width::integer, 'n_distinct', t.n::real);
    end if;
  end loop;
end $$;
