-- How the cycle's corrections are written into whatever columns and types the bots' tables have. As in 20_views.sql the
-- functions' bodies are text: the bots' own migrations are never blocked, and after one `recon migrate` builds them anew.

DROP FUNCTION IF EXISTS recon.update_orders(jsonb);
DROP FUNCTION IF EXISTS recon.insert_positions(jsonb);
DROP FUNCTION IF EXISTS recon.insert_trade_history(jsonb);
DROP FUNCTION IF EXISTS recon.insert_capital(jsonb);

-- An expression that reads the text source as the column's type: exact numbers are never rounded, instants are cut to ms.
CREATE OR REPLACE FUNCTION recon.value_expression(kind text, column_name text, type text, source text) RETURNS text
  LANGUAGE sql IMMUTABLE AS
$$
  SELECT CASE kind
    WHEN 'time' THEN format('recon.from_ms(recon.to_ms((%1$s)::timestamptz), NULL::%2$s)::%2$s', source, type)
    WHEN 'exact' THEN format(
      'CASE WHEN recon.holds_exactly((%1$s)::numeric, (%1$s)::numeric::%2$s::text, %3$L) THEN (%1$s)::numeric::%2$s END',
      source, type, column_name)
    ELSE format('nullif(%s, '''')::%s', source, type)
  END
$$;

DO $$
DECLARE
  orders  regclass := 'public.orders'::regclass;
  target  record;
  names   text;
  chosen  text;
  unknown text;
BEGIN
  -- recon.update_orders(rows): compare-and-set on the whole row. A row is {order_id, before: its image, values: columns to
  -- set}; columns that values does not name stay, and so does every column of the bots' own. Returns the ids updated.
  SELECT string_agg(
           format('%1$I = CASE WHEN r.item -> ''values'' ? %1$L THEN %2$s ELSE o.%1$I END', c.name,
                  recon.value_expression(c.kind, c.name, t.type, format('r.item -> ''values'' ->> %L', c.name))),
           ', ' ORDER BY c.place)
    INTO chosen
    FROM (VALUES
      (1, 'status', 'plain'), (2, 'qty', 'exact'), (3, 'quantity', 'exact'), (4, 'filled_qty', 'exact'),
      (5, 'price', 'plain'), (6, 'filled_at', 'time'), (7, 'sub_tag', 'plain')
    ) AS c(place, name, kind)
    CROSS JOIN LATERAL (SELECT recon.column_type(orders, c.name) AS type) AS t
    WHERE t.type IS NOT NULL;
  EXECUTE format(
    'CREATE FUNCTION recon.update_orders(rows jsonb) RETURNS SETOF text LANGUAGE sql VOLATILE AS %L',
    format(
      'UPDATE public.orders AS o SET %s FROM jsonb_array_elements(rows) AS r(item)
       WHERE o.order_id = r.item ->> ''order_id'' AND to_jsonb(o) = (r.item ->> ''before'')::jsonb
       RETURNING o.order_id::text',
      concat_ws(', ', chosen, recon.column_or(orders, 'updated_at', '%I = now()', NULL))));

  -- recon.insert_positions, insert_trade_history, insert_capital (rows): a trade's row where there is none. Return the trades
  -- inserted. Where the table wants a column that only its bot can fill, nothing is inserted: the outbox tells the bot.
  FOR target IN
    SELECT * FROM (VALUES
      ('positions', 'insert_positions'), ('trade_history', 'insert_trade_history'), ('capital_ledger', 'insert_capital')
    ) AS v(table_name, function_name)
  LOOP
    SELECT string_agg(format('%I', c.name), ', ' ORDER BY c.place),
           string_agg(recon.value_expression(c.kind, c.name, t.type, format('r.item ->> %L', c.name)), ', ' ORDER BY c.place)
      INTO names, chosen
      FROM (VALUES
        (1, 'profile_id', 'plain'), (2, 'trade_id', 'plain'), (3, 'user_id', 'plain'), (4, 'symbol', 'plain'),
        (5, 'side', 'plain'), (6, 'qty', 'plain'), (7, 'avg_entry_price', 'plain'), (8, 'entry_qty', 'plain'),
        (9, 'exit_qty', 'plain'), (10, 'entry_price', 'plain'), (11, 'exit_price', 'plain'),
        (12, 'realized_pnl_usd', 'plain'), (13, 'reserved_usd', 'plain'), (14, 'status', 'plain'),
        (15, 'opened_at', 'time'), (16, 'closed_at', 'time')
      ) AS c(place, name, kind)
      CROSS JOIN LATERAL (
        SELECT recon.column_type(format('public.%I', target.table_name)::regclass, c.name) AS type
      ) AS t
      WHERE t.type IS NOT NULL;
    SELECT string_agg(a.attname, ', ')
      INTO unknown
      FROM pg_attribute a
      WHERE a.attrelid = format('public.%I', target.table_name)::regclass AND a.attnum > 0 AND NOT a.attisdropped
        AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
        AND a.attname NOT IN ('profile_id', 'trade_id', 'user_id', 'symbol', 'side', 'qty', 'status', 'entry_qty', 'exit_qty',
                              'reserved_usd', 'opened_at');
    EXECUTE format(
      'CREATE FUNCTION recon.%I(rows jsonb) RETURNS SETOF text LANGUAGE sql VOLATILE AS %L',
      target.function_name,
      CASE WHEN unknown IS NULL THEN format(
        'INSERT INTO public.%I (%s) SELECT %s FROM jsonb_array_elements(rows) AS r(item)
         ON CONFLICT DO NOTHING RETURNING trade_id::text', target.table_name, names, chosen)
      ELSE 'SELECT r.item ->> ''trade_id'' FROM jsonb_array_elements(rows) AS r(item) WHERE false' END);
    EXECUTE format(
      'COMMENT ON FUNCTION recon.%I(jsonb) IS %L', target.function_name,
      CASE WHEN unknown IS NULL THEN 'inserts' ELSE 'inserts nothing: not known how to fill ' || unknown END);
  END LOOP;
END
$$;
