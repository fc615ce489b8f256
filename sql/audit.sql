-- The audit of the exit backfill.

-- name: insert_audit_records
-- Row locks on the new rows only.
INSERT INTO public.reconciliation_backfill_audit (
  batch_id, profile_id, symbol, trade_id, exchange_order_id, exchange_client_order_id, backfill_order_id,
  filled_qty, filled_price, filled_at, dry_run, decision, reason, metadata, applied_at
)
SELECT batch_id, profile_id, symbol, trade_id, exchange_order_id, exchange_client_order_id, backfill_order_id,
       filled_qty, filled_price, filled_at, dry_run, decision, reason, metadata, applied_at
FROM jsonb_to_recordset(:'records'::jsonb) AS r (
  batch_id text, profile_id text, symbol text, trade_id text, exchange_order_id text, exchange_client_order_id text,
  backfill_order_id text, filled_qty numeric, filled_price numeric, filled_at timestamptz, dry_run boolean,
  decision text, reason text, metadata jsonb, applied_at timestamptz
)
RETURNING id, batch_id, profile_id, trade_id, exchange_order_id, backfill_order_id, decision, reason, created_at;

-- name: select_audit_of_batch
-- Index recon_backfill_audit_batch_idx.
SELECT id, batch_id, profile_id, symbol, trade_id, exchange_order_id, exchange_client_order_id, backfill_order_id,
       filled_qty, filled_price, filled_at, dry_run, decision, reason, metadata, created_at, applied_at, reverted_at
FROM public.reconciliation_backfill_audit
WHERE batch_id = :'batch_id'
ORDER BY id;

-- name: select_audit_of_profile
-- Index recon_backfill_audit_profile_created_idx. Newest first.
SELECT id, batch_id, profile_id, symbol, trade_id, exchange_order_id, exchange_client_order_id, backfill_order_id,
       filled_qty, filled_price, filled_at, dry_run, decision, reason, metadata, created_at, applied_at, reverted_at
FROM public.reconciliation_backfill_audit
WHERE profile_id = :'profile_id' AND created_at >= :'since'::timestamptz
ORDER BY created_at DESC, id DESC
LIMIT :'row_limit'::int;
