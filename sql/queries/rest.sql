-- name: keep_secrets
-- Sealed settings $2 of rows of table $1, written in this transaction. As the caller.
select app.keep_secrets($1, $2::jsonb);

-- name: list_relations
-- The public tables and views named in $1: what may be written through them (bits of pg_relation_is_updatable), and
-- the column sets that are unique as a whole, the primary key first.
select c.relname as name, c.relkind = 'v' as is_view, pg_relation_is_updatable(c.oid, true) as updatable,
       coalesce((select json_agg(u.names order by u.is_primary desc, u.names::text) from (
                   select i.indisprimary as is_primary,
                          (select json_agg(a.attname order by array_position(i.indkey::int2[], a.attnum))
                             from pg_attribute a where a.attrelid = c.oid and a.attnum = any (i.indkey)) as names
                     from pg_index i
                    where i.indrelid = c.oid and i.indisunique and i.indpred is null and i.indexprs is null) u), '[]')::text as keys,
       obj_description(c.oid, 'pg_class') as description
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'public'
 where c.relname = any ($1::text[]) and c.relkind in ('r', 'p', 'v')
 order by c.relname;

-- name: list_attributes
-- The columns of the public tables and views named in $1, in order: type as SQL writes it, default expression, and the
-- words that a CHECK named <table>_<column>_check allows.
select c.relname as table_name, a.attname as column_name, format_type(a.atttypid, a.atttypmod) as type,
       a.attgenerated <> '' as is_generated, a.attnotnull as is_required, pg_get_expr(d.adbin, d.adrelid) as default_expression,
       (select pg_get_constraintdef(k.oid) from pg_constraint k
         where k.conrelid = c.oid and k.contype = 'c' and k.conname = c.relname || '_' || a.attname || '_check') as allowed
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'public'
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
 where c.relname = any ($1::text[]) and c.relkind in ('r', 'p', 'v')
 order by c.relname, a.attnum;

-- name: list_references
-- The foreign keys between the public tables named in $1, with their columns in order.
select k.conname as constraint_name, c.relname as table_name, t.relname as target,
       (select array_agg(a.attname::text order by x.n) from unnest(k.conkey) with ordinality x (num, n)
          join pg_attribute a on a.attrelid = k.conrelid and a.attnum = x.num) as columns,
       (select array_agg(a.attname::text order by x.n) from unnest(k.confkey) with ordinality x (num, n)
          join pg_attribute a on a.attrelid = k.confrelid and a.attnum = x.num) as target_columns
  from pg_constraint k
  join pg_class c on c.oid = k.conrelid and c.relnamespace = 'public'::regnamespace
  join pg_class t on t.oid = k.confrelid and t.relnamespace = 'public'::regnamespace
 where k.contype = 'f' and c.relname = any ($1::text[]) and t.relname = any ($1::text[])
 order by k.conname;

-- name: list_functions
-- The functions of the schema public, which is where a function stands that callers may call: arguments in order
-- (modes as pg_proc has them, NULL when all are plain inputs), how many of the last have defaults, volatility, and what
-- comes back: the table whose rows they are, or a type.
select p.proname as name, coalesce(p.proargnames, '{}')::text[] as argument_names,
       (select coalesce(array_agg(format_type(x.oid, null) order by x.n), '{}')
          from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) with ordinality x (oid, n)) as argument_types,
       coalesce(p.proargmodes::text[], '{}') as argument_modes, p.pronargdefaults as defaults, p.provolatile::text as volatility,
       p.proretset as is_set, format_type(p.prorettype, null) as returns, t.typtype::text as returns_kind,
       (select c.relname from pg_class c where c.oid = t.typrelid and c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v')) as returns_table,
       (select c.relname from pg_type r join pg_class c on c.oid = r.typrelid
         where r.oid = p.proargtypes[0] and p.pronargs = 1 and c.relnamespace = 'public'::regnamespace) as of_table,
       p.prorows = 1 as returns_one, has_function_privilege('authenticated', p.oid, 'execute') as for_members,
       obj_description(p.oid, 'pg_proc') as description
  from pg_proc p
  join pg_type t on t.oid = p.prorettype
 where p.pronamespace = 'public'::regnamespace and p.prokind = 'f'
   and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')
   and t.typname <> 'trigger'
 order by p.proname, p.oid;

-- name: schema_signature
-- A number that changes when tables, columns, references or functions of the schema public do.
select (select coalesce(sum(hashtext(concat_ws('|', a.attrelid, a.attname, a.atttypid, a.attisdropped, a.attnotnull)::text)::bigint), 0)
          from pg_attribute a join pg_class c on c.oid = a.attrelid
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v') and a.attnum > 0)
     + (select coalesce(sum(hashtext(concat_ws('|', k.oid, k.conname)::text)::bigint), 0) from pg_constraint k
         where k.connamespace = 'public'::regnamespace)
     + (select coalesce(sum(hashtext(concat_ws('|', p.oid, p.proname, p.provolatile, p.proacl::text)::text)::bigint), 0) from pg_proc p
         where p.pronamespace = 'public'::regnamespace);
