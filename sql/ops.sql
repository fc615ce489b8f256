-- What `recon serve` reads, all in one read-only transaction every few seconds: the pipeline's own tables, and of the bots' tables
-- profiles, trading_control, and the orders that may still execute. Nothing here writes, and no statement reads more the longer the
-- pipeline runs.

-- name: ops_never_write
-- No lock, no table: for the rest of the session a statement that would write is an error.
SELECT set_config('default_transaction_read_only', 'on', false);

-- name: ops_profiles
-- Reads the table profiles whole: it has one row per bot. created_at is NULL where the table has no such column.
SELECT a.profile_id, a.user_id, a.account_id, a.enabled, recon.to_time(p.item ->> 'created_at') AS created_at
FROM recon.profile_accounts AS a
LEFT JOIN (SELECT to_jsonb(t) AS item FROM public.profiles AS t) AS p ON p.item ->> 'profile_id' = a.profile_id
WHERE a.profile_id IS NOT NULL
ORDER BY a.profile_id;

-- name: ops_cycles
-- View recon.cycle_board: two rows of the indexes of recon.cycle_reports per profile.
SELECT *
FROM recon.cycle_board
ORDER BY profile_id;

-- name: ops_cycle_runs
-- Index cycle_runs_began_idx. Newest first.
SELECT run_id, began_at, ended_at, profiles, failed, contended
FROM recon.cycle_runs
ORDER BY began_at DESC
LIMIT :'row_limit'::bigint;

-- name: ops_trading
-- The whole of trading_control, which has a row for all trading and at most one per profile. That of all first.
SELECT scope, state, source, since, reason
FROM recon.trading_states()
ORDER BY scope <> 'all', scope;

-- name: ops_watchdogs
-- View recon.watchdog_board, the whole of it: one row per profile.
SELECT *
FROM recon.watchdog_board
ORDER BY profile_id;

-- name: ops_contentions
-- Reads the table lease_contentions whole: it has one row per profile.
SELECT coalesce(sum(contentions), 0)::bigint AS contentions
FROM recon.lease_contentions;

-- name: ops_pending_batches
-- Index batches_pending_idx. Oldest first.
SELECT batch_id, profile_id, kind, updated_at
FROM recon.batches
WHERE state = 'PENDING_APPLY'
ORDER BY updated_at, batch_id;

-- name: ops_totals
-- Reads the table totals whole: it has one row per counter and profile or account.
SELECT name, profile_id, account_id, value
FROM recon.totals
ORDER BY name, profile_id, account_id;

-- name: ops_accounts
-- Reads profiles and account_usage whole; primary key of recon.watermarks. An account that was never read has NULLs.
SELECT account_id, u.rate_limit, u.rate_remaining, u.complete, u.incomplete_why, u.read_at, u.asked_at, w.covered_until
FROM (SELECT DISTINCT account_id FROM recon.profile_accounts) AS a
FULL JOIN recon.account_usage AS u USING (account_id)
LEFT JOIN (SELECT account_id, covered_until FROM recon.watermarks WHERE stream = 'fills') AS w USING (account_id)
ORDER BY account_id;

-- name: ops_order_checks
-- Reads the table order_checks whole: it has one row per order that is stale or was. Oldest order first.
SELECT profile_id, order_id, account_id, client_order_id, trade_id, symbol, side, status, placed_at, outcome, exchange_status,
       detail, failures, first_seen_at, checked_at, next_check_at, run_id, updated_at
FROM recon.order_checks
ORDER BY placed_at NULLS FIRST, profile_id, order_id;

-- name: ops_unchecked_orders
-- Index orders_live_idx where the table has it (`recon doctor` says which index to make), primary key of recon.order_checks. Orders
-- that may still execute, are older than the stale threshold, and that no sync has looked at. Oldest first.
SELECT o.profile_id, coalesce(p.account_id, '') AS account_id, o.order_id, coalesce(o.client_order_id, '') AS client_order_id,
       coalesce(o.trade_id, '') AS trade_id, coalesce(o.symbol, '') AS symbol, coalesce(o.side, '') AS side,
       coalesce(lower(translate(trim(o.status), '- ', '__')), '') AS status,
       coalesce(o.created_at, recon.from_ms(o.time_ms, NULL::timestamptz)) AS placed_at
FROM recon.lifecycle_orders AS o
LEFT JOIN recon.profile_accounts AS p ON p.profile_id = o.profile_id
WHERE recon.may_execute(o.status)
  AND o.order_id <> '' AND o.order_id NOT LIKE 'BFILL-%' AND o.order_id NOT LIKE 'PARITY-%'
  AND coalesce(o.created_at, recon.from_ms(o.time_ms, NULL::timestamptz), '-infinity')
      < now() - make_interval(secs => :'stale_seconds'::double precision)
  AND NOT EXISTS (SELECT FROM recon.order_checks AS c WHERE c.profile_id = o.profile_id AND c.order_id = o.order_id)
ORDER BY placed_at NULLS FIRST, o.profile_id, o.order_id
LIMIT :'row_limit'::bigint;

-- name: ops_sync
-- Index order_sync_runs_began_idx. The last run.
SELECT run_id, began_at, ended_at, dry_run, checked, updated, not_found, failed, still_live, left_over, api_calls, error
FROM recon.order_sync_runs
ORDER BY began_at DESC
LIMIT 1;

-- name: ops_streams
-- Reads the table order_streams whole: it has one row per account.
SELECT account_id, state, since, seen_at, last_event_at, connections, error
FROM recon.order_streams
ORDER BY account_id;

-- name: ops_waiting
-- Reads the table waiting_cases whole: it has one row for each thing that waits for a person. Most money first.
SELECT profile_id, case_key, account_id, stage, reason, root_cause, trade_id, order_id, symbol, notional_usd, first_seen_at,
       seen_at, run_id, detail
FROM recon.waiting_cases
ORDER BY notional_usd DESC NULLS LAST, first_seen_at, profile_id, case_key;

-- name: ops_undelivered_events
-- Index events_undelivered_idx. What waits for its delivery for longer than a minute.
SELECT count(*) AS events
FROM recon.events
WHERE delivered_at IS NULL AND created_at < now() - interval '1 minute';
