-- What the demo book writes into an empty sandbox, as bots and an earlier run would have, and what it reads back to compare
-- with the truth. Never run against a production database.

-- name: count_profiles
-- Reads the table profiles whole; it has one row per bot.
SELECT count(*) AS profiles FROM public.profiles WHERE profile_id LIKE :'pattern';

-- name: insert_demo_profiles
-- Locks only what it inserts.
INSERT INTO public.profiles (profile_id, user_id, account_id, name, allocated_capital_usd)
SELECT profile_id, user_id, account_id, name, capital_usd
FROM jsonb_to_recordset(:'rows'::jsonb)
  AS r(profile_id text, user_id text, account_id text, name text, capital_usd numeric);

-- name: insert_demo_orders
-- Locks only what it inserts.
INSERT INTO public.orders (order_id, client_order_id, user_id, profile_id, symbol, type, side, qty, quantity, filled_qty,
                           price, status, "timestamp", filled_at, trade_id, action, source, sub_tag, created_at, updated_at)
SELECT order_id, nullif(client_order_id, ''), user_id, profile_id, symbol, 'market', side, qty, qty, filled_qty, price,
       status, (extract(epoch FROM at) * 1000)::bigint, CASE WHEN filled_qty > 0 THEN at END, trade_id, action, source,
       sub_tag, at, at
FROM jsonb_to_recordset(:'rows'::jsonb)
  AS r(order_id text, client_order_id text, user_id text, profile_id text, symbol text, side text, qty numeric,
       filled_qty numeric, price numeric, status text, at timestamptz, trade_id text, action text, source text, sub_tag text);

-- name: insert_demo_trades
-- Locks only what it inserts: positions, history and reserved capital, as the bot last saw each trade.
WITH trades AS (
  SELECT *
  FROM jsonb_to_recordset(:'rows'::jsonb)
    AS r(profile_id text, trade_id text, symbol text, side text, entry_qty numeric, exit_qty numeric, entry_price numeric,
         exit_price numeric, opened_at timestamptz, closed_at timestamptz)
), opened AS (
  INSERT INTO public.positions (profile_id, trade_id, symbol, side, qty, avg_entry_price, status, opened_at, closed_at)
  SELECT profile_id, trade_id, symbol, side, entry_qty - exit_qty, entry_price,
         CASE WHEN closed_at IS NULL THEN 'open' ELSE 'closed' END, opened_at, closed_at
  FROM trades
), reserved AS (
  INSERT INTO public.capital_ledger (profile_id, trade_id, reserved_usd)
  SELECT profile_id, trade_id, (entry_qty - exit_qty) * entry_price FROM trades
)
INSERT INTO public.trade_history (profile_id, trade_id, symbol, side, entry_qty, exit_qty, entry_price, exit_price,
                                  status, opened_at, closed_at)
SELECT profile_id, trade_id, symbol, side, entry_qty, exit_qty, entry_price, exit_price,
       CASE WHEN closed_at IS NULL THEN 'open' ELSE 'closed' END, opened_at, closed_at
FROM trades;

-- name: insert_demo_reverted_batch
-- Locks only what it inserts.
WITH batch AS (
  INSERT INTO recon.batches (batch_id, profile_id, account_id, kind, state, applied_at, reverted_at)
  VALUES (:'batch_id', :'profile_id', :'account_id', 'exit_backfill', 'REVERTED', :'at', :'at')
)
INSERT INTO public.reconciliation_backfill_audit (batch_id, profile_id, symbol, trade_id, exchange_order_id,
  exchange_client_order_id, backfill_order_id, filled_qty, filled_price, filled_at, dry_run, decision, reason, metadata,
  applied_at, reverted_at)
VALUES (:'batch_id', :'profile_id', :'symbol', :'trade_id', :'exchange_order_id', :'exchange_client_order_id',
  :'backfill_order_id', :'qty', :'price', :'at', false, 'APPLIED', 'inserted', '{}'::jsonb, :'at', :'at');

-- name: select_demo_orders
-- Index orders (profile_id, ...) as far as the pattern allows; the demo book is small.
SELECT order_id, profile_id, trade_id, symbol, lower(side) AS side, upper(action) AS action, qty, price, status,
       to_jsonb(o) AS whole
FROM public.orders AS o
WHERE profile_id LIKE :'pattern'
ORDER BY order_id;

-- name: select_demo_written
-- Index reconciliation_backfill_audit (profile_id, created_at). What the pipeline says that it inserted, by cited order.
SELECT DISTINCT profile_id, trade_id, exchange_order_id, backfill_order_id, filled_qty
FROM public.reconciliation_backfill_audit
WHERE profile_id LIKE :'pattern' AND decision = 'APPLIED' AND reverted_at IS NULL AND NOT dry_run;

-- name: select_demo_decisions
-- Index reconciliation_backfill_audit (profile_id, created_at). The newest decision of each trade that stays as it is.
SELECT DISTINCT ON (profile_id, trade_id) profile_id, trade_id, decision, reason
FROM public.reconciliation_backfill_audit
WHERE profile_id LIKE :'pattern' AND (decision = 'NO_GO' OR decision LIKE 'SKIP_%')
ORDER BY profile_id, trade_id, created_at DESC, id DESC;

-- name: select_demo_trades
-- Primary keys of the three tables.
SELECT h.profile_id, h.trade_id, h.status AS history_status, h.entry_qty, h.exit_qty, p.status AS position_status,
       p.qty AS position_qty, c.reserved_usd
FROM public.trade_history AS h
LEFT JOIN public.positions AS p USING (profile_id, trade_id)
LEFT JOIN public.capital_ledger AS c USING (profile_id, trade_id)
WHERE h.profile_id LIKE :'pattern'
ORDER BY h.profile_id, h.trade_id;

-- name: select_demo_plans
-- Index batches (profile_id, created_at). The newest plan of each profile that a dry run wrote down.
SELECT DISTINCT ON (b.profile_id) b.profile_id, b.batch_id, b.digest,
       (SELECT count(*) FROM public.reconciliation_backfill_audit AS a
        WHERE a.batch_id = b.batch_id AND a.decision = 'DRY_RUN') AS proposals
FROM recon.batches AS b
WHERE b.profile_id LIKE :'pattern' AND b.state = 'PLANNED'
ORDER BY b.profile_id, b.created_at DESC;
