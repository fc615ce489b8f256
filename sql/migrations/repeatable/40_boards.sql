-- What people look at without knowing the tables: who holds which lease, which watchdog has paused what, and the latest report of
-- each profile. Nothing that the pipeline decides stands on these views. They read the pipeline's own tables; trading_control,
-- which is the bots', is read through a function whose body is text, so that no view of ours blocks a migration of theirs.

DROP VIEW IF EXISTS recon.lease_board, recon.watchdog_board, recon.cycle_board;

SET LOCAL check_function_bodies = off;                       -- a column that is missing fails the board, not the migration
CREATE OR REPLACE FUNCTION recon.trading_states()
  RETURNS TABLE (scope text, state text, source text, since timestamptz, reason text) LANGUAGE sql STABLE AS
$$
  SELECT t.scope::text, upper(btrim(t.state::text)), t.source::text, recon.to_time(t.since), t.reason::text
  FROM public.trading_control AS t
$$;
SET LOCAL check_function_bodies = on;

-- Leases and contention. A profile whose lease was never taken has no row.
CREATE VIEW recon.lease_board AS
SELECT coalesce(l.profile_id, c.profile_id) AS profile_id,
       coalesce(l.owner <> '' AND l.expires_at > clock_timestamp(), false) AS held,
       nullif(l.owner, '') AS owner,                         -- an owner whose lease is not held let it expire: it died or hangs
       CASE WHEN l.owner <> '' AND l.expires_at > clock_timestamp()
            THEN round(extract(epoch FROM l.expires_at - clock_timestamp()), 1) END AS seconds_left,
       l.expires_at,
       l.renewed_at,
       l.token,
       coalesce(c.contentions, 0) AS contentions,
       c.last_at AS last_contended_at,
       c.last_holder AS last_contended_with
FROM recon.leases AS l
FULL JOIN recon.lease_contentions AS c USING (profile_id);

-- Watchdogs, beside what the bots read: trading is the state that holds for the profile, its own row or that of all.
CREATE VIEW recon.watchdog_board AS
SELECT w.profile_id,
       w.paused_at IS NOT NULL AS paused_by_watchdog,
       w.paused_at,
       w.reason,
       w.mismatch_usd,
       w.capital_usd,                                        -- NULL: not known, the watchdog can't judge
       CASE WHEN w.capital_usd > 0 THEN round(w.mismatch_usd / w.capital_usd, 4) END AS mismatch_ratio,
       w.clean_cycles,
       w.last_clean_at,
       w.triggered_at,
       w.resumed_at,
       coalesce(t.state, 'RUNNING') AS trading,
       t.source AS trading_source,
       t.since AS trading_since,
       t.reason AS trading_reason,
       w.updated_at
FROM recon.watchdogs AS w
LEFT JOIN LATERAL (
  SELECT s.state, s.source, s.since, s.reason
  FROM recon.trading_states() AS s
  WHERE s.scope IN ('all', w.profile_id)
  ORDER BY s.state <> 'PAUSED', s.scope <> 'all'             -- a pause beats a state that runs, that of all the profile's own
  LIMIT 1
) AS t ON true;

-- The latest report of each profile that decided anything (one that found the lease taken says nothing), one index row each.
CREATE VIEW recon.cycle_board AS
WITH RECURSIVE reported AS (
  (SELECT profile_id FROM recon.cycle_reports ORDER BY profile_id LIMIT 1)
  UNION ALL
  SELECT (SELECT r.profile_id FROM recon.cycle_reports AS r WHERE r.profile_id > p.profile_id ORDER BY r.profile_id LIMIT 1)
  FROM reported AS p
  WHERE p.profile_id IS NOT NULL
)
SELECT p.profile_id,
       r.cycle_at,
       r.run_id,
       r.processed,
       r.clean,
       cleaned.cycle_at AS last_clean_at,
       r.report ->> 'skipped_reason' AS skipped_reason,
       r.report ->> 'error' AS error,
       (r.report ->> 'evidence_complete')::boolean AS evidence_complete,
       (r.report ->> 'mismatch_count')::bigint AS mismatch_count,
       (r.report ->> 'missing_from_exchange')::bigint AS missing_from_exchange,
       (r.report ->> 'missing_in_db')::bigint AS missing_in_db,
       (r.report ->> 'no_go_trades')::bigint AS no_go_trades,
       (r.report ->> 'parity_mismatch_trades')::bigint AS parity_mismatch_trades,
       (r.report ->> 'parity_quarantined_trades')::bigint AS parity_quarantined_trades,
       (r.report ->> 'parity_auto_closed_trades')::bigint AS parity_auto_closed_trades,
       (r.report ->> 'parity_max_mismatch_notional_usd')::numeric AS parity_max_mismatch_notional_usd,
       (r.report ->> 'parity_total_mismatch_notional_usd')::numeric AS parity_total_mismatch_notional_usd,
       (r.report ->> 'integrity_watchdog_triggered')::boolean AS integrity_watchdog_triggered,
       (r.report ->> 'corrections')::bigint AS corrections,
       (r.report ->> 'proposed_rows')::bigint AS proposed_rows,
       (r.report ->> 'open_trades')::bigint AS open_trades,
       (r.report ->> 'max_confirmations')::bigint AS max_confirmations,
       (r.report ->> 'waiting_for_person')::bigint AS waiting_for_person,
       (r.report ->> 'money_at_risk_usd')::numeric AS money_at_risk_usd,
       (r.report ->> 'data_defects')::bigint AS data_defects,
       (r.report ->> 'paused')::boolean AS paused,
       r.report ->> 'pause_source' AS pause_source,
       r.report -> 'failed_stages' AS failed_stages,
       coalesce(c.contentions, 0) AS contentions,
       c.last_at AS last_contended_at
FROM reported AS p
LEFT JOIN LATERAL (
  SELECT *
  FROM recon.cycle_reports AS n
  WHERE n.profile_id = p.profile_id AND coalesce(n.report ->> 'skipped_reason', '') <> 'lease_held'
  ORDER BY n.cycle_at DESC, n.created_at DESC
  LIMIT 1
) AS r ON true
LEFT JOIN LATERAL (
  SELECT n.cycle_at
  FROM recon.cycle_reports AS n
  WHERE n.profile_id = p.profile_id AND n.clean
  ORDER BY n.cycle_at DESC
  LIMIT 1
) AS cleaned ON true
LEFT JOIN recon.lease_contentions AS c ON c.profile_id = p.profile_id
WHERE p.profile_id IS NOT NULL;

GRANT EXECUTE ON FUNCTION recon.trading_states() TO recon_reader, recon_writer;
GRANT SELECT ON recon.lease_board, recon.watchdog_board, recon.cycle_board TO recon_reader, recon_writer;
