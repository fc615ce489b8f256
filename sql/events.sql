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

-- name: raise_events
-- Primary key of recon.throttles; row locks on the scopes in their order, so two processes at once take turns and one of them
-- raises. Of several events of one scope in a call the first is raised. A scope that was last said at an instant further ahead
-- than the throttle was said by a clock that is wrong, and silences nobody.
WITH wanted AS (
  SELECT place, type, severity, message, profile_id, user_id, account_id, details, scope, throttle_ms,
         scope <> '' AND throttle_ms > 0 AS throttled
  FROM ROWS FROM (
    jsonb_to_recordset(:'events'::jsonb) AS (
      type text, severity text, message text, profile_id text, user_id text, account_id text, details jsonb, scope text,
      throttle_ms bigint
    )
  ) WITH ORDINALITY AS r (
    type, severity, message, profile_id, user_id, account_id, details, scope, throttle_ms, place
  )
),
first_of_scope AS (
  SELECT DISTINCT ON (scope) scope, place, throttle_ms * interval '1 millisecond' AS quiet
  FROM wanted
  WHERE throttled
  ORDER BY scope, place
),
taken AS (
  INSERT INTO recon.throttles AS t (scope, emitted_at)
  SELECT scope, :'at'::timestamptz
  FROM first_of_scope
  ORDER BY scope
  ON CONFLICT (scope) DO UPDATE
  SET emitted_at = excluded.emitted_at
  WHERE NOT EXISTS (
    SELECT FROM first_of_scope AS f
    WHERE f.scope = t.scope AND t.emitted_at > excluded.emitted_at - f.quiet AND t.emitted_at < excluded.emitted_at + f.quiet
  )
  RETURNING t.scope
)
INSERT INTO recon.events (type, severity, message, profile_id, user_id, account_id, run_id, details, created_at)
SELECT w.type, w.severity, w.message, nullif(w.profile_id, ''), nullif(w.user_id, ''), nullif(w.account_id, ''),
       nullif(:'run_id', ''), w.details, :'at'::timestamptz
FROM wanted AS w
WHERE NOT w.throttled OR w.place IN (SELECT f.place FROM first_of_scope AS f JOIN taken USING (scope))
ORDER BY w.place
RETURNING id;
