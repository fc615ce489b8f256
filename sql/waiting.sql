-- What waits for a person: recon.waiting_cases, as each profile's latest cycle left it. Only the pipeline's own table.

-- name: save_waiting_cases
-- Primary key of recon.waiting_cases; row locks on what is there. Of every (profile, stage) that was decided the cases are
-- replaced: one that is missing from the rows waits no more and is removed, one that stays keeps when it was seen first. Cases
-- of a stage that was not decided stay as they are.
WITH decided AS (
  SELECT profile_id, stage FROM jsonb_to_recordset(:'decided'::jsonb) AS d (profile_id text, stage text)
),
cases AS (
  SELECT profile_id, case_key, account_id, stage, reason, root_cause, trade_id, order_id, symbol, notional_usd,
         timestamptz 'epoch' + first_seen_ms * interval '1 millisecond' AS first_seen_at, detail
  FROM jsonb_to_recordset(:'rows'::jsonb) AS r (
    profile_id text, case_key text, account_id text, stage text, reason text, root_cause text, trade_id text, order_id text,
    symbol text, notional_usd numeric, first_seen_ms bigint, detail jsonb
  )
),
resolved AS (
  DELETE FROM recon.waiting_cases AS w
  USING decided AS d
  WHERE w.profile_id = d.profile_id AND w.stage = d.stage
    AND NOT EXISTS (SELECT FROM cases AS c WHERE c.profile_id = w.profile_id AND c.case_key = w.case_key)
)
INSERT INTO recon.waiting_cases AS w (
  profile_id, case_key, account_id, stage, reason, root_cause, trade_id, order_id, symbol, notional_usd, first_seen_at, seen_at,
  run_id, detail
)
SELECT profile_id, case_key, account_id, stage, reason, root_cause, trade_id, order_id, symbol, notional_usd, first_seen_at,
       timestamptz 'epoch' + :'seen_ms'::bigint * interval '1 millisecond', :'run_id', detail
FROM cases
ORDER BY profile_id, case_key
ON CONFLICT (profile_id, case_key) DO UPDATE
SET account_id = excluded.account_id, stage = excluded.stage, reason = excluded.reason, root_cause = excluded.root_cause,
    trade_id = excluded.trade_id, order_id = excluded.order_id, symbol = excluded.symbol, notional_usd = excluded.notional_usd,
    first_seen_at = least(w.first_seen_at, excluded.first_seen_at), seen_at = excluded.seen_at, run_id = excluded.run_id,
    detail = excluded.detail;
