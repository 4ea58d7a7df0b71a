-- name: list_columns
-- The columns of the public tables and views named in $1, in order, with their primary key's columns.
select c.relname as table_name, a.attname as column_name, format_type(a.atttypid, a.atttypmod) as type,
       a.attgenerated <> '' as is_generated, t.typelem <> 0 and t.typlen = -1 as is_array, c.relkind = 'v' as is_view,
       coalesce((select array_agg(k.attname::text order by array_position(i.indkey::int2[], k.attnum))
                   from pg_index i join pg_attribute k on k.attrelid = c.oid and k.attnum = any (i.indkey)
                  where i.indrelid = c.oid and i.indisprimary), '{}') as key
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'public'
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  join pg_type t on t.oid = a.atttypid
 where c.relname = any ($1::text[]) and c.relkind in ('r', 'p', 'v')
 order by c.relname, a.attnum;

-- name: keep_secrets
-- Sealed settings $2 of rows of table $1, written in this transaction. As the caller.
select app.keep_secrets($1, $2::jsonb);
