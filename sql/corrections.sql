-- The corrections of the five-minute cycle: with apply.sql, rollback.sql and control.sql the only statements that write the
-- bots' tables. All of these run in one transaction, beside those of apply.sql. Row images go in and out as text. Nothing is
-- ever deleted.

-- name: select_order_columns
-- System catalogs only. The columns of orders; the labels of the status where it is an enumeration.
SELECT a.attname::text AS column_name,
       CASE WHEN a.attname = 'status' THEN
         ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum AS e WHERE e.enumtypid = a.atttypid ORDER BY e.enumsortorder)
       ELSE '{}' END AS labels
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid = to_regclass('public.orders') AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum;

-- name: update_orders
-- Unique index orders (order_id); compare-and-set on the image of each row. Returns what was updated.
SELECT order_id
FROM recon.update_orders(:'records'::jsonb) AS order_id;

-- name: insert_corrected_orders
-- Unique index orders (order_id); row locks on the new rows. Returns what was inserted: a row that exists is left alone.
SELECT order_id
FROM recon.insert_orders(:'records'::jsonb) AS order_id;

-- name: insert_positions
-- Primary key positions (profile_id, trade_id); row locks on the new rows. A row that exists is left alone.
SELECT trade_id
FROM recon.insert_positions(:'records'::jsonb) AS trade_id;

-- name: insert_trade_history
-- Primary key trade_history (profile_id, trade_id); row locks on the new rows. A row that exists is left alone.
SELECT trade_id
FROM recon.insert_trade_history(:'records'::jsonb) AS trade_id;

-- name: insert_capital
-- Primary key capital_ledger (profile_id, trade_id); row locks on the new rows. A row that exists is left alone.
SELECT trade_id
FROM recon.insert_capital(:'records'::jsonb) AS trade_id;

-- name: release_consumption_of_rows
-- Unique index consumption_live_backfill_order_key. Whatever batch consumed for these rows.
UPDATE recon.consumption
SET released_at = :'released_at'::timestamptz
WHERE backfill_order_id = ANY(:'order_ids'::text[]) AND released_at IS NULL
RETURNING backfill_order_id;

-- name: select_written_corrections
-- Index corrections_batch_idx. What a batch that was applied earlier wrote.
SELECT table_name, row_key
FROM recon.corrections
WHERE batch_id = :'batch_id'
ORDER BY id;
