-- What operators and alerts are told.

-- name: insert_events
-- Row locks on the new rows only.
INSERT INTO recon.events (type, severity, message, profile_id, user_id, account_id, run_id, details)
SELECT type, severity, message, profile_id, user_id, account_id, run_id, details
FROM jsonb_to_recordset(:'events'::jsonb) AS r (
  type text, severity text, message text, profile_id text, user_id text, account_id text, run_id text, details jsonb
)
RETURNING id;

-- name: select_events
-- Index events_created_idx. Newest first.
SELECT id, type, severity, message, profile_id, user_id, account_id, run_id, details, created_at
FROM recon.events
WHERE created_at >= :'since'::timestamptz
ORDER BY created_at DESC, id DESC
LIMIT :'row_limit'::int;
