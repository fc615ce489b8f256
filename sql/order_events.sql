-- The stream of order events: what the exchange told, each event once, and who listens. Only the pipeline's own tables.

-- name: insert_order_event
-- Unique index of recon.order_events (account_id, event_key). Returns nothing where the event was stored before.
INSERT INTO recon.order_events (account_id, event_key, event, order_id, client_order_id, happened_at, received_at, raw)
VALUES (
  :'account_id', :'event_key', :'event', :'order_id', :'client_order_id', :'happened_at'::timestamptz,
  :'received_at'::timestamptz, :'raw'::jsonb
)
ON CONFLICT (account_id, event_key) DO NOTHING
RETURNING id;

-- name: select_waiting_order_events
-- Index order_events_waiting_idx. Events that nobody has handled yet, as they came.
SELECT id, event, order_id, client_order_id, recon.to_ms(happened_at) AS happened_ms, recon.to_ms(received_at) AS received_ms, raw
FROM recon.order_events
WHERE account_id = :'account_id' AND handled_at IS NULL
ORDER BY id
LIMIT :'row_limit'::int;

-- name: select_disputed_orders
-- Index order_events_order_idx. Orders of which any event was told under another name than the given ones: an execution may have
-- been taken back.
SELECT DISTINCT order_id
FROM recon.order_events
WHERE account_id = :'account_id' AND order_id = ANY(:'order_ids'::text[]) AND event <> ALL(:'telling'::text[])
ORDER BY order_id;

-- name: settle_order_events
-- Primary key of recon.order_events; row locks on the rows given. One that was handled already stays as it is.
UPDATE recon.order_events AS e
SET outcome = r.outcome, detail = r.detail, profile_id = r.profile_id, needs_cycle = r.needs_cycle,
    handled_at = :'handled_at'::timestamptz
FROM jsonb_to_recordset(:'rows'::jsonb) AS r (id bigint, outcome text, detail text, profile_id text, needs_cycle boolean)
WHERE e.id = r.id AND e.handled_at IS NULL
RETURNING e.id;

-- name: select_profiles_to_reconcile
-- Index order_events_needs_cycle_idx, and cycle_reports_profile_cycle_idx once per profile. Profiles with an event of the last day
-- that needs a cycle and that no cycle which decided anything has begun after. An event whose profile is not known is every
-- enabled profile's of its account.
WITH needing AS (
  SELECT e.id, e.account_id, e.profile_id, coalesce(e.handled_at, e.received_at) AS since
  FROM recon.order_events AS e
  WHERE e.needs_cycle AND e.received_at > now() - interval '1 day'
)
SELECT p.profile_id, max(n.id) AS newest_id, count(*) AS events
FROM needing AS n
JOIN recon.profile_accounts AS p
  ON p.account_id = n.account_id AND p.enabled AND (n.profile_id = p.profile_id OR n.profile_id = '')
LEFT JOIN LATERAL (
  SELECT r.cycle_at
  FROM recon.cycle_reports AS r
  WHERE r.profile_id = p.profile_id AND r.processed
  ORDER BY r.cycle_at DESC
  LIMIT 1
) AS latest ON true
WHERE latest.cycle_at IS NULL OR n.since > latest.cycle_at
GROUP BY p.profile_id
ORDER BY p.profile_id;

-- name: try_listening
-- An advisory lock of the session, by account: whoever has it listens. It ends with the session, so a killed process leaves none.
SELECT pg_try_advisory_lock(hashtextextended('recon stream ' || :'account_id', 0)) AS free;

-- name: stop_listening
-- Gives the advisory lock of try_listening back.
SELECT pg_advisory_unlock(hashtextextended('recon stream ' || :'account_id', 0)) AS released;

-- name: select_order_stream
-- Primary key of recon.order_streams.
SELECT account_id, state, since, seen_at, last_event_at, connections, error
FROM recon.order_streams
WHERE account_id = :'account_id';

-- name: save_order_stream
-- Primary key of recon.order_streams; row lock on the account's row. ``since`` moves when the state does, connections are added.
INSERT INTO recon.order_streams AS s (account_id, state, since, seen_at, last_event_at, connections, error)
VALUES (
  :'account_id', :'state', :'seen_at'::timestamptz, :'seen_at'::timestamptz, :'last_event_at'::timestamptz,
  :'connections'::bigint, :'error'
)
ON CONFLICT (account_id) DO UPDATE
SET state = excluded.state, seen_at = excluded.seen_at, error = excluded.error,
    since = CASE WHEN s.state = excluded.state THEN s.since ELSE excluded.since END,
    last_event_at = coalesce(excluded.last_event_at, s.last_event_at), connections = s.connections + excluded.connections;
