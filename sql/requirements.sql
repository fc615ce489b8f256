-- What the database offers, for `recon doctor` and the gate. System catalogs only.

-- name: select_columns
-- Index pg_attribute_relid_attnam_index.
SELECT c.relname AS table_name, a.attname AS column_name, format_type(a.atttypid, NULL) AS type,
       t.typcategory::text AS category,
       CASE WHEN a.atttypid = 'numeric'::regtype AND a.atttypmod >= 0 THEN (a.atttypmod - 4) & 2047 END AS scale,
       a.attnotnull AS not_null,
       a.atthasdef OR a.attidentity <> '' AS has_default
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
WHERE c.relnamespace = to_regnamespace('public') AND c.relname = ANY(:'tables'::text[])
ORDER BY c.relname, a.attnum;

-- name: select_unique_keys
-- Index pg_index_indrelid_index. Keys that ON CONFLICT can use: unique, valid, over plain columns, without a condition.
SELECT c.relname AS table_name,
       ARRAY(
         SELECT a.attname::text
         FROM unnest(i.indkey[0:i.indnkeyatts - 1]) AS k(attnum)
         JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
         ORDER BY a.attname
       ) AS columns
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
WHERE c.relnamespace = to_regnamespace('public') AND c.relname = ANY(:'tables'::text[])
  AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY c.relname;

-- name: select_privileges
-- Index pg_class_relname_nsp_index. What each role may do with each table, and whether row security may hide rows from it.
SELECT c.relname AS table_name, r.rolname AS role_name,
       has_table_privilege(r.oid, c.oid, 'SELECT') AS may_select,
       has_table_privilege(r.oid, c.oid, 'INSERT') AS may_insert,
       has_table_privilege(r.oid, c.oid, 'UPDATE') AS may_update,
       has_table_privilege(r.oid, c.oid, 'DELETE') OR has_table_privilege(r.oid, c.oid, 'TRUNCATE') AS may_delete,
       c.relrowsecurity AND NOT r.rolbypassrls AND NOT EXISTS (
         SELECT FROM pg_catalog.pg_policy AS p
         WHERE p.polrelid = c.oid AND p.polcmd = '*' AND p.polpermissive
           AND pg_get_expr(p.polqual, p.polrelid) = 'true'
           AND (p.polroles = '{0}' OR EXISTS (
             SELECT FROM unnest(p.polroles) AS member(oid)
             WHERE CASE WHEN member.oid = 0 THEN true ELSE pg_has_role(r.oid, member.oid, 'USAGE') END))
       ) AS hides_rows
FROM pg_catalog.pg_class AS c
CROSS JOIN pg_catalog.pg_roles AS r
WHERE c.relnamespace = to_regnamespace('public') AND c.relname = ANY(:'tables'::text[])
  AND r.rolname IN ('recon_reader', 'recon_writer')
ORDER BY c.relname, r.rolname;

-- name: select_profile_index
-- Index pg_index_indrelid_index. True where some index of orders begins with profile_id, as the lifecycle reading needs it.
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_index AS i
  WHERE i.indrelid = to_regclass('public.orders') AND i.indisvalid AND i.indpred IS NULL
    AND pg_get_indexdef(i.indexrelid, 1, true) ~ '^\(?profile_id(::text)?\)?$'
    AND (pg_get_indexdef(i.indexrelid, 1, true) LIKE '%::text%' OR EXISTS (
      SELECT FROM pg_catalog.pg_attribute AS a
      WHERE a.attrelid = i.indrelid AND a.attname = 'profile_id'
        AND a.atttypid IN ('text'::regtype, 'varchar'::regtype)))
) AS indexed;

-- name: select_live_index
-- Index pg_index_indrelid_index. True where some index of orders holds only the orders that may still execute.
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_index AS i
  WHERE i.indrelid = to_regclass('public.orders') AND i.indisvalid
    AND pg_get_expr(i.indpred, i.indrelid) LIKE '%translate(%done_for_day%'
) AS indexed;
