-- Pause and resume: the rows of trading_control that bots and this pipeline obey.

-- name: lock_trading_state
-- Primary key trading_control (scope); row lock to the end of the transaction.
SELECT scope, state, source, since, reason
FROM public.trading_control
WHERE scope = :'scope'
FOR UPDATE;

-- name: set_trading_state
-- Primary key trading_control (scope). since stays where the state does not change; waits for applies that hold the row.
INSERT INTO public.trading_control AS t (scope, state, source, since, reason, updated_at)
VALUES (:'scope', :'state', :'source', :'at'::timestamptz, :'reason', :'at'::timestamptz)
ON CONFLICT (scope) DO UPDATE
SET state = excluded.state, source = excluded.source, reason = excluded.reason, updated_at = excluded.updated_at,
    since = CASE WHEN t.state = excluded.state THEN t.since ELSE excluded.since END
RETURNING scope, state, source, since, reason;

-- name: ensure_trading_state
-- Primary key trading_control (scope). A row to lock; trading without a row is running already.
INSERT INTO public.trading_control (scope, state, source, since, reason, updated_at)
VALUES (:'scope', 'RUNNING', :'source', :'at'::timestamptz, '', :'at'::timestamptz)
ON CONFLICT (scope) DO NOTHING;
