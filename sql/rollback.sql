-- The rollback of an applied batch: by status only, never by deleting. One transaction; positions, trade history and capital
-- are restored through the set_... statements of apply.sql, under the locks taken there.

-- name: select_corrections_of_batch
-- Index corrections_batch_idx. Images as text, so that no number changes its spelling on the way.
SELECT id, profile_id, table_name, row_key, before::text AS before, after::text AS after
FROM recon.corrections
WHERE batch_id = :'batch_id' AND reverted_at IS NULL
ORDER BY id;

-- name: select_row_images
-- Unique index orders (order_id) and the primary keys of the other tables. Rows as they are now, without a lock.
SELECT 'orders' AS table_name, order_id::text AS key, to_jsonb(t)::text AS image
FROM public.orders AS t
WHERE order_id = ANY(:'order_ids'::text[])
UNION ALL
SELECT 'positions', trade_id::text, to_jsonb(t)::text
FROM public.positions AS t
WHERE profile_id::text = :'profile_id' AND trade_id::text = ANY(:'trade_ids'::text[])
UNION ALL
SELECT 'trade_history', trade_id::text, to_jsonb(t)::text
FROM public.trade_history AS t
WHERE profile_id::text = :'profile_id' AND trade_id::text = ANY(:'trade_ids'::text[])
UNION ALL
SELECT 'capital_ledger', trade_id::text, to_jsonb(t)::text
FROM public.capital_ledger AS t
WHERE profile_id::text = :'profile_id' AND trade_id::text = ANY(:'trade_ids'::text[]);

-- name: select_rows_inserted_elsewhere
-- Index recon_backfill_audit_order_idx. Backfill rows that another batch inserted and has not taken back.
SELECT DISTINCT backfill_order_id
FROM public.reconciliation_backfill_audit
WHERE backfill_order_id = ANY(:'order_ids'::text[])
  AND batch_id <> :'batch_id' AND decision = 'APPLIED' AND reverted_at IS NULL
ORDER BY backfill_order_id;

-- name: cancel_backfill_orders
-- Unique index orders (order_id); compare-and-set on the whole row.
UPDATE public.orders AS o
SET status = 'canceled', updated_at = now()
FROM jsonb_array_elements(:'records'::jsonb) AS r(item)
WHERE o.order_id = r.item ->> 'order_id' AND to_jsonb(o) = (r.item ->> 'before')::jsonb
RETURNING o.order_id::text AS order_id;

-- name: mark_audit_reverted
-- Primary key of the audit table.
UPDATE public.reconciliation_backfill_audit
SET reverted_at = :'reverted_at'::timestamptz
WHERE id = ANY(:'ids'::bigint[]) AND reverted_at IS NULL
RETURNING id;

-- name: mark_corrections_reverted
-- Primary key of recon.corrections.
UPDATE recon.corrections
SET reverted_at = :'reverted_at'::timestamptz
WHERE id = ANY(:'ids'::bigint[]) AND reverted_at IS NULL
RETURNING id;

-- name: release_consumption
-- Primary key consumption (batch_id, backfill_order_id).
UPDATE recon.consumption
SET released_at = :'reverted_at'::timestamptz
WHERE batch_id = :'batch_id' AND backfill_order_id = ANY(:'order_ids'::text[]) AND released_at IS NULL
RETURNING backfill_order_id;
