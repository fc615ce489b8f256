-- Delivery of events. An event is first logged and either settled (kept to the log) or given a message; a message is then posted
-- while its rows are locked. Time is the server's: several machines may deliver.

-- name: claim_new_events
-- Partial index events_undelivered_idx; row locks to the end of the transaction, on events that no other delivery holds.
SELECT id, type, severity, message, profile_id, user_id, account_id, run_id, details, created_at
FROM recon.events
WHERE delivered_at IS NULL AND message_id IS NULL
ORDER BY id
LIMIT :'row_limit'::int
FOR UPDATE SKIP LOCKED;

-- name: settle_events
-- Primary key of recon.events; row locks that claim_new_events took. They are logged, and nothing more is due.
UPDATE recon.events
SET delivered_at = clock_timestamp()
WHERE id = ANY(:'ids'::bigint[]);

-- name: assign_messages
-- Primary key of recon.events; row locks that claim_new_events took.
UPDATE recon.events AS e
SET message_id = m.message_id, next_attempt_at = clock_timestamp()
FROM unnest(:'ids'::bigint[], :'message_ids'::bigint[]) AS m(id, message_id)
WHERE e.id = m.id;

-- name: claim_message
-- Partial index events_message_idx. The oldest message that is due and that no other delivery holds: its first event is locked
-- to the end of the transaction, and the others of it belong to whoever holds the first.
SELECT message_id
FROM recon.events
WHERE delivered_at IS NULL AND message_id = id AND id > :'after'::bigint AND next_attempt_at <= clock_timestamp()
ORDER BY id
LIMIT 1
FOR UPDATE SKIP LOCKED;

-- name: select_message
-- Partial index events_message_idx. The events of a message that is not delivered, oldest first.
SELECT id, type, severity, message, profile_id, user_id, account_id, run_id, details, created_at, attempts
FROM recon.events
WHERE message_id = :'message_id'::bigint AND delivered_at IS NULL
ORDER BY id;

-- name: finish_message
-- Partial index events_message_idx; row locks on the events of the message.
UPDATE recon.events
SET delivered_at = clock_timestamp(), attempts = attempts + 1, last_error = NULL
WHERE message_id = :'message_id'::bigint AND delivered_at IS NULL;

-- name: postpone_message
-- Partial index events_message_idx; row locks on the events of the message.
UPDATE recon.events
SET attempts = attempts + 1, last_error = :'error',
    next_attempt_at = clock_timestamp() + make_interval(secs => :'seconds'::double precision)
WHERE message_id = :'message_id'::bigint AND delivered_at IS NULL;

-- name: select_waiting_messages
-- Partial index events_message_idx. What is not delivered yet: how many, since when, and what the last attempt of the oldest met.
SELECT count(*) AS messages, min(created_at) AS since, max(attempts) AS attempts,
       (array_agg(last_error ORDER BY id) FILTER (WHERE last_error IS NOT NULL))[1] AS last_error
FROM recon.events
WHERE delivered_at IS NULL AND message_id = id;
