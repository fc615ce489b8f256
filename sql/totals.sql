-- Counters that only grow, and what the exchange said of each account's requests: recon.totals, recon.cycle_runs,
-- recon.account_usage. Every statement here is part of the transaction that saves what it counts.

-- name: add_totals
-- Primary key of recon.totals; row locks in the order of the key, so that two runs never wait for each other in a circle.
INSERT INTO recon.totals AS t (name, profile_id, account_id, value)
SELECT a.name, a.profile_id, a.account_id, sum(a.value)
FROM jsonb_to_recordset(:'additions'::jsonb) AS a (name text, profile_id text, account_id text, value numeric)
GROUP BY a.name, a.profile_id, a.account_id
ORDER BY a.name, a.profile_id, a.account_id
ON CONFLICT (name, profile_id, account_id) DO UPDATE
SET value = t.value + excluded.value, updated_at = now();

-- name: insert_cycle_run
-- Primary key of recon.cycle_runs; row lock on the new row. Returns the run where it was not there yet.
INSERT INTO recon.cycle_runs (run_id, began_at, ended_at, profiles, failed, contended)
VALUES (
  :'run_id', :'began_at'::timestamptz, :'ended_at'::timestamptz, :'profiles'::int, :'failed'::int, :'contended'::int
)
ON CONFLICT (run_id) DO NOTHING
RETURNING run_id;

-- name: save_account_reading
-- Primary key of recon.account_usage; row lock on the account's row. A reading that began earlier does not overwrite a later one.
INSERT INTO recon.account_usage AS u (account_id, complete, incomplete_why, read_at, asked_at)
VALUES (:'account_id', :'complete'::boolean, :'incomplete_why', :'read_at'::timestamptz, :'asked_at'::timestamptz)
ON CONFLICT (account_id) DO UPDATE
SET complete = excluded.complete, incomplete_why = excluded.incomplete_why, read_at = excluded.read_at
WHERE u.read_at IS NULL OR u.read_at <= excluded.read_at;

-- name: save_account_requests
-- Primary key of recon.account_usage; row lock on the account's row. What the exchange did not say leaves the limit as it was.
INSERT INTO recon.account_usage AS u (account_id, rate_limit, rate_remaining, asked_at)
VALUES (:'account_id', :'rate_limit'::int, :'rate_remaining'::int, :'asked_at'::timestamptz)
ON CONFLICT (account_id) DO UPDATE
SET rate_limit = coalesce(excluded.rate_limit, u.rate_limit), rate_remaining = excluded.rate_remaining,
    asked_at = excluded.asked_at
WHERE u.asked_at <= excluded.asked_at;
