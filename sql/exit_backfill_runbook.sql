-- The queries of the exit backfill runbook. In psql: \set profile_id p1   \set batch_id RECON-BFILL-...   then paste a block.
-- Quantities are as the pipeline counts them: qty, else quantity. None of these changes anything.

-- name: detect_affected_trades
-- Index orders (profile_id, ...). Trades with more entered than left, or left than entered (open_qty below 0: over-exit). Rows
-- without an action are counted apart; the pipeline infers their action from the side.
SELECT profile_id, symbol, trade_id,
       coalesce(sum(coalesce(qty, quantity)::numeric) FILTER (WHERE upper(action) = 'ENTRY'), 0) AS entry_qty,
       coalesce(sum(coalesce(qty, quantity)::numeric) FILTER (WHERE upper(action) = 'EXIT'), 0) AS exit_qty,
       coalesce(sum(coalesce(qty, quantity)::numeric) FILTER (WHERE upper(action) = 'ENTRY'), 0)
         - coalesce(sum(coalesce(qty, quantity)::numeric) FILTER (WHERE upper(action) = 'EXIT'), 0) AS open_qty,
       count(*) FILTER (WHERE action IS NULL OR upper(action) NOT IN ('ENTRY', 'EXIT')) AS rows_without_action,
       count(*) FILTER (WHERE qty::numeric <> quantity::numeric) AS conflicting_rows
FROM recon.lifecycle_orders
WHERE profile_id = :'profile_id'
  AND lower(status) IN ('filled', 'partially_filled', 'partially-filled')
  AND trade_id IS NOT NULL
GROUP BY profile_id, symbol, trade_id
HAVING abs(coalesce(sum(coalesce(qty, quantity)::numeric) FILTER (WHERE upper(action) = 'ENTRY'), 0)
         - coalesce(sum(coalesce(qty, quantity)::numeric) FILTER (WHERE upper(action) = 'EXIT'), 0)) > 0.00000001
ORDER BY symbol, trade_id;

-- name: verify_dry_run
-- Index recon_backfill_audit_profile_created_idx. What the newest batches decided, and why.
SELECT batch_id, profile_id, symbol, trade_id, decision, reason, filled_qty, filled_price, filled_at, exchange_order_id,
       exchange_client_order_id, backfill_order_id, dry_run, created_at
FROM public.reconciliation_backfill_audit
WHERE profile_id = :'profile_id'
ORDER BY created_at DESC, id DESC
LIMIT 200;

-- name: dry_run_left_orders_unchanged
-- Index orders (profile_id, ...). Run before and after a dry run: both rows must be the same.
SELECT count(*) AS order_rows,
       count(*) FILTER (WHERE order_id LIKE 'BFILL-%') AS backfill_rows,
       coalesce(md5(string_agg(md5(o::text), '' ORDER BY order_id)), '') AS fingerprint
FROM recon.lifecycle_orders AS o
WHERE profile_id = :'profile_id';

-- name: go_no_go
-- Primary keys of trading_control and recon.batches, index recon_backfill_audit_batch_idx, and orders (profile_id, ...). One row
-- for one reviewed batch: apply only where go is true. The position gate is the plan's; it shows here as held_back.
WITH batch AS (
  SELECT profile_id, decision, reason, trade_id, filled_qty
  FROM public.reconciliation_backfill_audit
  WHERE batch_id = :'batch_id'
),
facts AS (
  SELECT
    EXISTS (
      SELECT FROM public.trading_control
      WHERE state = 'PAUSED' AND (scope = 'all' OR scope IN (SELECT profile_id FROM batch))
    ) AS paused,
    (SELECT count(*) FROM batch WHERE decision IN ('DRY_RUN', 'PENDING_APPLY')) AS candidates,
    (SELECT coalesce(sum(filled_qty), 0) FROM batch WHERE decision IN ('DRY_RUN', 'PENDING_APPLY')) AS candidate_qty,
    (SELECT count(*) FROM batch WHERE decision = 'NO_GO') AS no_go,
    (SELECT count(*) FROM batch WHERE decision = 'SKIP_ACTIVE_POSITION') AS held_back,
    (SELECT count(*) FROM recon.lifecycle_orders AS o
     WHERE o.profile_id IN (SELECT profile_id FROM batch)
       AND o.trade_id IN (SELECT trade_id FROM batch WHERE decision IN ('DRY_RUN', 'PENDING_APPLY'))
       AND lower(translate(coalesce(trim(o.status), ''), '- ', '__')) <> ALL (ARRAY[
         'filled', 'partially_filled', 'canceled', 'cancelled', 'expired', 'rejected', 'replaced', 'done_for_day', 'failed',
         'error'])) AS pending_blockers,
    (SELECT state FROM recon.batches WHERE batch_id = :'batch_id') AS batch_state
)
SELECT paused AND candidates > 0 AND no_go = 0 AND pending_blockers = 0 AS go,
       paused, candidates, candidate_qty, no_go, held_back, pending_blockers, batch_state
FROM facts;

-- name: validate_inserted_rows
-- Index orders (profile_id, ...). The backfill rows of a profile, with the batch that consumed evidence for them.
SELECT o.order_id, o.profile_id, o.symbol, o.trade_id, o.side, o.action, o.status, o.qty, o.price, o.filled_at, o.created_at,
       c.batch_id, c.exchange_order_id, c.qty AS consumed_qty
FROM recon.lifecycle_orders AS o
LEFT JOIN recon.consumption AS c ON c.backfill_order_id = o.order_id AND c.released_at IS NULL
WHERE o.profile_id = :'profile_id' AND o.order_id LIKE 'BFILL-%'
ORDER BY o.created_at DESC, o.order_id;

-- name: open_lifecycle_after
-- Index orders (profile_id, ...). After an apply: no row for the trades that were repaired.
SELECT profile_id, symbol, trade_id,
       sum(CASE upper(action) WHEN 'ENTRY' THEN coalesce(qty, quantity)::numeric
                              WHEN 'EXIT' THEN -coalesce(qty, quantity)::numeric END) AS open_qty
FROM recon.lifecycle_orders
WHERE profile_id = :'profile_id'
  AND lower(status) IN ('filled', 'partially_filled', 'partially-filled')
  AND trade_id IS NOT NULL
GROUP BY profile_id, symbol, trade_id
HAVING sum(CASE upper(action) WHEN 'ENTRY' THEN coalesce(qty, quantity)::numeric
                              WHEN 'EXIT' THEN -coalesce(qty, quantity)::numeric END) > 0.000001
ORDER BY symbol, trade_id;

-- name: decision_counts
-- Index recon_backfill_audit_profile_created_idx.
SELECT decision, reason, count(*) AS rows, coalesce(sum(filled_qty), 0) AS filled_qty, max(created_at) AS newest
FROM public.reconciliation_backfill_audit
WHERE profile_id = :'profile_id'
GROUP BY decision, reason
ORDER BY decision, reason;

-- name: preview_rollback
-- Index recon_backfill_audit_batch_idx, unique index orders (order_id). Which rows a rollback of the batch would cancel, and why
-- not the others. The rollback itself is the job exit_backfill_rollback: it also releases what the batch consumed.
SELECT a.backfill_order_id, a.profile_id, a.symbol, a.trade_id, a.decision, o.status, o.qty, a.filled_qty,
       CASE
         WHEN o.order_id IS NULL THEN 'the row is not in orders'
         WHEN a.reverted_at IS NOT NULL THEN 'reverted already'
         WHEN o.status = 'canceled' THEN 'canceled already'
         WHEN coalesce(o.qty, o.quantity)::numeric <> a.filled_qty OR o.price::numeric IS DISTINCT FROM a.filled_price
           THEN 'changed since it was written'
         WHEN a.decision = 'SKIP_EXISTING' AND EXISTS (
           SELECT FROM public.reconciliation_backfill_audit AS other
           WHERE other.backfill_order_id = a.backfill_order_id AND other.batch_id <> a.batch_id
             AND other.decision = 'APPLIED' AND other.reverted_at IS NULL
         ) THEN 'inserted by another batch that is still in force'
         ELSE 'would be canceled'
       END AS outcome
FROM public.reconciliation_backfill_audit AS a
LEFT JOIN recon.lifecycle_orders AS o ON o.order_id = a.backfill_order_id
WHERE a.batch_id = :'batch_id' AND a.decision IN ('APPLIED', 'SKIP_EXISTING') AND a.backfill_order_id IS NOT NULL
ORDER BY a.symbol, a.trade_id, a.backfill_order_id;
