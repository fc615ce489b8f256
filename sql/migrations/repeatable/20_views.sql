-- The bots' tables as the pipeline reads them, rebuilt from whatever columns they have; a missing optional column becomes a
-- typed NULL or its default. Quantities and prices are exposed as text, as the table spells them: the domain parses them
-- exactly, and one bad value makes one row unusable instead of the whole reading.
--
-- The views stand on functions whose bodies are text: PostgreSQL records no dependency on the bots' columns, so the bots'
-- own migrations are never blocked by a view of ours. A statement fails, and says which column, until `recon migrate` has
-- run again. Such a function is inlined by the planner, so the table's indexes serve conditions on the views.

DROP VIEW IF EXISTS recon.lifecycle_orders, recon.profile_accounts;
DROP FUNCTION IF EXISTS recon.lifecycle_order_rows(), recon.profile_account_rows();
DROP FUNCTION IF EXISTS recon.orders_timestamp(bigint);
DROP FUNCTION IF EXISTS recon.insert_orders(jsonb);

CREATE OR REPLACE FUNCTION recon.column_type(of_table regclass, column_name text) RETURNS text
  LANGUAGE sql STABLE AS
$$
  SELECT format_type(a.atttypid, a.atttypmod)
  FROM pg_attribute a
  WHERE a.attrelid = of_table AND a.attname = column_name AND a.attnum > 0 AND NOT a.attisdropped
$$;

-- present with %I for the column where the table has it, else the literal text of absent.
CREATE OR REPLACE FUNCTION recon.column_or(of_table regclass, column_name text, present text, absent text) RETURNS text
  LANGUAGE sql STABLE AS
$$
  SELECT CASE WHEN recon.column_type(of_table, column_name) IS NULL THEN absent ELSE format(present, column_name) END
$$;

DO $$
DECLARE
  orders   regclass := 'public.orders'::regclass;
  profiles regclass := 'public.profiles'::regclass;
  stamp    text     := recon.column_type('public.orders'::regclass, 'timestamp');
  names    text;
  selected text;
  columns  text;
BEGIN
  -- recon.lifecycle_orders
  SELECT string_agg(
           CASE c.kind
             WHEN 'text' THEN recon.column_or(orders, c.name, 'o.%I::text', 'NULL::text')
             WHEN 'time' THEN recon.column_or(orders, c.name, 'recon.to_time(o.%I)', 'NULL::timestamptz')
             WHEN 'ms'   THEN recon.column_or(orders, 'timestamp', 'recon.to_ms(o.%I)', 'NULL::bigint')
           END, ', ' ORDER BY c.place),
         string_agg(
           format('%I %s', c.name, CASE c.kind WHEN 'text' THEN 'text' WHEN 'time' THEN 'timestamptz' ELSE 'bigint' END),
           ', ' ORDER BY c.place)
    INTO selected, columns
    FROM (VALUES
      (1, 'profile_id', 'text'), (2, 'user_id', 'text'), (3, 'order_id', 'text'), (4, 'client_order_id', 'text'),
      (5, 'trade_id', 'text'), (6, 'symbol', 'text'), (7, 'type', 'text'), (8, 'side', 'text'), (9, 'action', 'text'),
      (10, 'status', 'text'), (11, 'qty', 'text'), (12, 'quantity', 'text'), (13, 'filled_qty', 'text'),
      (14, 'price', 'text'), (15, 'time_ms', 'ms'), (16, 'filled_at', 'time'), (17, 'created_at', 'time'),
      (18, 'updated_at', 'time'), (19, 'sub_tag', 'text'), (20, 'source', 'text')
    ) AS c(place, name, kind);
  EXECUTE format(
    'CREATE FUNCTION recon.lifecycle_order_rows() RETURNS TABLE (%s) LANGUAGE sql STABLE ROWS 100000 AS %L',
    columns, format('SELECT %s FROM public.orders AS o', selected));
  CREATE VIEW recon.lifecycle_orders AS SELECT * FROM recon.lifecycle_order_rows();

  -- recon.profile_accounts
  EXECUTE format(
    'CREATE FUNCTION recon.profile_account_rows() RETURNS TABLE (profile_id text, user_id text, account_id text, name text,
       enabled boolean, managed_symbols text[], allocated_capital_usd text) LANGUAGE sql STABLE ROWS 10000 AS %L',
    format(
      'SELECT %s, %s, %s, %s, %s, %s, %s FROM public.profiles AS p',
      recon.column_or(profiles, 'profile_id', 'p.%I::text', 'NULL::text'),
      recon.column_or(profiles, 'user_id', 'p.%I::text', 'NULL::text'),
      recon.column_or(profiles, 'account_id', 'coalesce(nullif(p.%I::text, ''''), ''default'')', '''default''::text'),
      recon.column_or(profiles, 'name', 'p.%I::text', 'NULL::text'),
      recon.column_or(profiles, 'enabled', 'coalesce(p.%I, false)', 'true'),
      recon.column_or(profiles, 'managed_symbols', 'recon.to_symbols(p.%I)', 'NULL::text[]'),
      recon.column_or(profiles, 'allocated_capital_usd', 'p.%I::text', 'NULL::text')));
  CREATE VIEW recon.profile_accounts AS SELECT * FROM recon.profile_account_rows();

  -- recon.orders_timestamp(ms): an instant in the type of orders."timestamp"
  IF stamp IS NOT NULL THEN
    EXECUTE format(
      'CREATE FUNCTION recon.orders_timestamp(ms bigint) RETURNS %s LANGUAGE sql STABLE AS %L',
      stamp, format('SELECT recon.from_ms(ms, NULL::%s)::%s', stamp, stamp));
  END IF;

  -- recon.insert_orders(rows): inserts backfill rows in the types and columns the table has; returns the ids inserted.
  -- Not built where a required column is missing: an insert then fails, and `recon doctor` names the column.
  SELECT string_agg(format('%I', c.name), ', ' ORDER BY c.place),
         string_agg(
           CASE c.kind
             WHEN 'ms'   THEN 'recon.orders_timestamp((r.item ->> ''timestamp'')::bigint)'
             WHEN 'time' THEN format('recon.from_ms(recon.to_ms((r.item ->> %L)::timestamptz), NULL::%s)::%s',
                                     c.name, t.type, t.type)
             WHEN 'exact' THEN format(
               'CASE WHEN recon.holds_exactly((r.item ->> %1$L)::numeric, (r.item ->> %1$L)::numeric::%2$s::text, %1$L)
                  THEN (r.item ->> %1$L)::numeric::%2$s END', c.name, t.type)
             ELSE format('nullif(r.item ->> %L, '''')::%s', c.name, t.type)
           END, ', ' ORDER BY c.place)
    INTO names, selected
    FROM (VALUES
      (1, 'order_id', 'plain', true), (2, 'client_order_id', 'plain', false), (3, 'user_id', 'plain', true),
      (4, 'profile_id', 'plain', true), (5, 'symbol', 'plain', true), (6, 'type', 'plain', true),
      (7, 'side', 'plain', true), (8, 'qty', 'exact', true), (9, 'quantity', 'exact', false),
      (10, 'filled_qty', 'exact', false), (11, 'price', 'plain', true), (12, 'status', 'plain', true),
      (13, 'timestamp', 'ms', true), (14, 'filled_at', 'time', true), (15, 'trade_id', 'plain', true),
      (16, 'action', 'plain', true), (17, 'source', 'plain', true), (18, 'sub_tag', 'plain', false)
    ) AS c(place, name, kind, required)
    CROSS JOIN LATERAL (SELECT recon.column_type(orders, c.name) AS type) AS t
    WHERE t.type IS NOT NULL OR c.required;
  IF selected IS NOT NULL AND NOT EXISTS (
    SELECT FROM unnest(ARRAY['order_id', 'user_id', 'profile_id', 'symbol', 'type', 'side', 'qty', 'price', 'status',
                             'timestamp', 'filled_at', 'trade_id', 'action', 'source']) AS required(name)
    WHERE recon.column_type(orders, required.name) IS NULL
  ) THEN
    EXECUTE format(
      'CREATE FUNCTION recon.insert_orders(rows jsonb) RETURNS SETOF text LANGUAGE sql VOLATILE AS %L',
      format(
        'INSERT INTO public.orders (%s) SELECT %s FROM jsonb_array_elements(rows) WITH ORDINALITY AS r(item, place)
         ORDER BY r.place ON CONFLICT (order_id) DO NOTHING RETURNING order_id::text', names, selected));
  END IF;
END
$$;
