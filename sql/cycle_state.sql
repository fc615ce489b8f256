-- What a cycle remembers for the next one, and its report. Only the pipeline's own tables. Every statement takes any number of
-- profiles; those that save run in a transaction that holds the profile's lease.

-- name: select_order_confirmations
-- Primary key of recon.order_confirmations.
SELECT profile_id, order_id, confirmations, recon.to_ms(first_missing_at) AS first_missing_ms,
       recon.to_ms(last_counted_at) AS last_counted_ms
FROM recon.order_confirmations
WHERE profile_id = ANY(:'profile_ids'::text[])
ORDER BY profile_id, order_id;

-- name: select_parity_states
-- Primary key of recon.parity_states.
SELECT profile_id, trade_id, symbol, signature, confirmations, recon.to_ms(first_seen_at) AS first_seen_ms,
       recon.to_ms(last_counted_at) AS last_counted_ms, open_qty, position_qty, notional_usd, quarantined, reason, root_cause
FROM recon.parity_states
WHERE profile_id = ANY(:'profile_ids'::text[])
ORDER BY profile_id, trade_id;

-- name: select_watchdogs
-- Primary key of recon.watchdogs.
SELECT profile_id, recon.to_ms(triggered_at) AS triggered_ms, recon.to_ms(paused_at) AS paused_ms, clean_cycles,
       recon.to_ms(last_clean_at) AS last_clean_ms, recon.to_ms(resumed_at) AS resumed_ms, mismatch_usd, capital_usd, reason
FROM recon.watchdogs
WHERE profile_id = ANY(:'profile_ids'::text[])
ORDER BY profile_id;

-- name: select_standing_pauses
-- The whole of trading_control, which has a row for all trading and at most one per profile. What is paused now, and by whom.
SELECT scope, source, recon.to_ms(since) AS since_ms
FROM recon.trading_states()
WHERE state = 'PAUSED'
ORDER BY scope;

-- name: save_order_confirmations
-- Primary key of recon.order_confirmations; row locks on what changes. An order that is missing from the rows is in line again:
-- its count is removed. A row that is as it was is not written.
WITH counted AS (
  SELECT order_id, confirmations, timestamptz 'epoch' + first_missing_ms * interval '1 millisecond' AS first_missing_at,
         timestamptz 'epoch' + last_counted_ms * interval '1 millisecond' AS last_counted_at
  FROM jsonb_to_recordset(:'rows'::jsonb) AS r (
    order_id text, confirmations int, first_missing_ms bigint, last_counted_ms bigint
  )
),
in_line AS (
  DELETE FROM recon.order_confirmations AS o
  WHERE o.profile_id = :'profile_id' AND NOT EXISTS (SELECT FROM counted AS c WHERE c.order_id = o.order_id)
)
INSERT INTO recon.order_confirmations AS o (profile_id, order_id, confirmations, first_missing_at, last_counted_at)
SELECT :'profile_id', order_id, confirmations, first_missing_at, last_counted_at
FROM counted
ORDER BY order_id
ON CONFLICT (profile_id, order_id) DO UPDATE
SET confirmations = excluded.confirmations, first_missing_at = excluded.first_missing_at,
    last_counted_at = excluded.last_counted_at
WHERE (o.confirmations, o.first_missing_at, o.last_counted_at)
      IS DISTINCT FROM (excluded.confirmations, excluded.first_missing_at, excluded.last_counted_at);

-- name: save_parity_states
-- Primary key of recon.parity_states; row locks on what changes. A trade that is missing from the rows is in line again: its
-- count is removed. A row that is as it was is not written.
WITH seen AS (
  SELECT trade_id, symbol, signature, confirmations, timestamptz 'epoch' + first_seen_ms * interval '1 millisecond' AS first_seen_at,
         timestamptz 'epoch' + last_counted_ms * interval '1 millisecond' AS last_counted_at, open_qty, position_qty,
         notional_usd, quarantined, reason, root_cause
  FROM jsonb_to_recordset(:'rows'::jsonb) AS r (
    trade_id text, symbol text, signature text, confirmations int, first_seen_ms bigint, last_counted_ms bigint,
    open_qty numeric, position_qty numeric, notional_usd numeric, quarantined boolean, reason text, root_cause text
  )
),
in_line AS (
  DELETE FROM recon.parity_states AS p
  WHERE p.profile_id = :'profile_id' AND NOT EXISTS (SELECT FROM seen AS s WHERE s.trade_id = p.trade_id)
)
INSERT INTO recon.parity_states AS p (
  profile_id, trade_id, symbol, signature, confirmations, first_seen_at, last_counted_at, open_qty, position_qty, notional_usd,
  quarantined, reason, root_cause
)
SELECT :'profile_id', trade_id, symbol, signature, confirmations, first_seen_at, last_counted_at, open_qty, position_qty,
       notional_usd, quarantined, reason, root_cause
FROM seen
ORDER BY trade_id
ON CONFLICT (profile_id, trade_id) DO UPDATE
SET symbol = excluded.symbol, signature = excluded.signature, confirmations = excluded.confirmations,
    first_seen_at = excluded.first_seen_at, last_counted_at = excluded.last_counted_at, open_qty = excluded.open_qty,
    position_qty = excluded.position_qty, notional_usd = excluded.notional_usd, quarantined = excluded.quarantined,
    reason = excluded.reason, root_cause = excluded.root_cause, updated_at = now()
WHERE (p.symbol, p.signature, p.confirmations, p.first_seen_at, p.last_counted_at, p.open_qty, p.position_qty, p.notional_usd,
       p.quarantined, p.reason, p.root_cause)
      IS DISTINCT FROM
      (excluded.symbol, excluded.signature, excluded.confirmations, excluded.first_seen_at, excluded.last_counted_at,
       excluded.open_qty, excluded.position_qty, excluded.notional_usd, excluded.quarantined, excluded.reason,
       excluded.root_cause);

-- name: save_watchdog
-- Primary key of recon.watchdogs; row lock on the profile's row. A row that is as it was is not written.
INSERT INTO recon.watchdogs AS w (
  profile_id, triggered_at, paused_at, clean_cycles, last_clean_at, resumed_at, mismatch_usd, capital_usd, reason
)
VALUES (
  :'profile_id',
  timestamptz 'epoch' + :'triggered_ms'::bigint * interval '1 millisecond',
  timestamptz 'epoch' + :'paused_ms'::bigint * interval '1 millisecond',
  :'clean_cycles'::int,
  timestamptz 'epoch' + :'last_clean_ms'::bigint * interval '1 millisecond',
  timestamptz 'epoch' + :'resumed_ms'::bigint * interval '1 millisecond',
  :'mismatch_usd'::numeric, :'capital_usd'::numeric, :'reason'
)
ON CONFLICT (profile_id) DO UPDATE
SET triggered_at = excluded.triggered_at, paused_at = excluded.paused_at, clean_cycles = excluded.clean_cycles,
    last_clean_at = excluded.last_clean_at, resumed_at = excluded.resumed_at, mismatch_usd = excluded.mismatch_usd,
    capital_usd = excluded.capital_usd, reason = excluded.reason, updated_at = now()
WHERE (w.triggered_at, w.paused_at, w.clean_cycles, w.last_clean_at, w.resumed_at, w.mismatch_usd, w.capital_usd, w.reason)
      IS DISTINCT FROM
      (excluded.triggered_at, excluded.paused_at, excluded.clean_cycles, excluded.last_clean_at, excluded.resumed_at,
       excluded.mismatch_usd, excluded.capital_usd, excluded.reason);

-- name: save_cycle_reports
-- Primary key of recon.cycle_reports and index cycle_reports_profile_cycle_idx; row locks on the new rows only. A run that
-- reports a profile again replaces what it said, and is told that it was not the first time. Compared is the profile's newest report of another run that decided anything:
-- one that found the lease taken (lease_held) says nothing about the profile.
WITH new AS (
  SELECT profile_id, run_id, timestamptz 'epoch' + cycle_at_ms * interval '1 millisecond' AS cycle_at, processed, clean, content,
         report
  FROM jsonb_to_recordset(:'rows'::jsonb) AS r (
    profile_id text, run_id text, cycle_at_ms bigint, processed boolean, clean boolean, content text, report jsonb
  )
),
added AS (
  INSERT INTO recon.cycle_reports (profile_id, run_id, cycle_at, processed, clean, content, report)
  SELECT profile_id, run_id, cycle_at, processed, clean, content, report
  FROM new
  ORDER BY profile_id
  ON CONFLICT (profile_id, run_id) DO NOTHING
  RETURNING profile_id
),
replaced AS (                                                -- what was there before this statement
  UPDATE recon.cycle_reports AS r
  SET cycle_at = n.cycle_at, processed = n.processed, clean = n.clean, content = n.content, report = n.report,
      created_at = now()
  FROM new AS n
  WHERE r.profile_id = n.profile_id AND r.run_id = n.run_id
)
SELECT n.profile_id,
       coalesce(n.report ->> 'skipped_reason', '') <> 'lease_held' AND n.content IS DISTINCT FROM before.content AS changed,
       a.profile_id IS NOT NULL AS first
FROM new AS n
LEFT JOIN added AS a USING (profile_id)
LEFT JOIN LATERAL (
  SELECT r.content
  FROM recon.cycle_reports AS r
  WHERE r.profile_id = n.profile_id AND r.run_id <> n.run_id AND coalesce(r.report ->> 'skipped_reason', '') <> 'lease_held'
  ORDER BY r.cycle_at DESC, r.created_at DESC
  LIMIT 1
) AS before ON true
ORDER BY n.profile_id;

-- name: select_latest_reports
-- Index cycle_reports_profile_cycle_idx, one row of it per profile. The newest report that decided anything.
SELECT r.profile_id, r.run_id, r.cycle_at, r.processed, r.clean, r.content, r.report
FROM unnest(:'profile_ids'::text[]) AS wanted(profile_id)
CROSS JOIN LATERAL (
  SELECT *
  FROM recon.cycle_reports AS c
  WHERE c.profile_id = wanted.profile_id AND coalesce(c.report ->> 'skipped_reason', '') <> 'lease_held'
  ORDER BY c.cycle_at DESC, c.created_at DESC
  LIMIT 1
) AS r
ORDER BY r.profile_id;

-- name: select_lease_holders
-- Primary key of recon.leases. Leases that are in force now.
SELECT profile_id, owner, token, expires_at
FROM recon.leases
WHERE profile_id = ANY(:'profile_ids'::text[]) AND owner <> '' AND expires_at > clock_timestamp()
ORDER BY profile_id;

-- name: note_contention
-- Primary key of recon.lease_contentions; row lock on the profile's row. Time is the server's, as of the leases.
INSERT INTO recon.lease_contentions AS c (profile_id, contentions, last_at, last_holder)
VALUES (:'profile_id', 1, clock_timestamp(), :'holder')
ON CONFLICT (profile_id) DO UPDATE
SET contentions = c.contentions + 1, last_at = excluded.last_at, last_holder = excluded.last_holder
RETURNING contentions;

-- name: select_contentions
-- Primary key of recon.lease_contentions.
SELECT profile_id, contentions, last_at, last_holder
FROM recon.lease_contentions
WHERE profile_id = ANY(:'profile_ids'::text[])
ORDER BY profile_id;

-- name: select_lease_board
-- View recon.lease_board, the whole of it: one row per profile. Who holds what, until when, and how often somebody found it taken.
SELECT profile_id, held, owner, seconds_left, expires_at, renewed_at, token, contentions, last_contended_at, last_contended_with
FROM recon.lease_board
ORDER BY profile_id;

-- name: select_watchdog_board
-- View recon.watchdog_board, the whole of it: one row per profile. Which watchdog has paused trading, and what it waits for.
SELECT profile_id, paused_by_watchdog, paused_at, reason, mismatch_usd, capital_usd, mismatch_ratio, clean_cycles,
       last_clean_at, triggered_at, resumed_at, trading, trading_source, trading_since, trading_reason
FROM recon.watchdog_board
ORDER BY profile_id;

-- name: select_cycle_board
-- View recon.cycle_board: one row per profile, through index cycle_reports_profile_cycle_idx. The latest report of each.
SELECT *
FROM recon.cycle_board
ORDER BY profile_id;
