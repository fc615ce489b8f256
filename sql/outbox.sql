-- The corrections as the bots read them: docs/outbox.md.

-- name: read_outbox
-- Index corrections_outbox_idx. What the consumer has not acknowledged, oldest first.
SELECT tx::text AS tx, id, batch_id, profile_id, kind, handler, trade_id, table_name, row_key, before, after, cause, created_at
FROM recon.read_outbox(:'consumer', :'row_limit'::integer);

-- name: acknowledge_outbox
-- Primary key of recon.outbox_consumers; a row lock on the consumer.
SELECT recon.acknowledge_outbox(:'consumer', :'tx'::text::xid8, :'id'::bigint) AS moved;

-- name: select_outbox_lag
-- Index corrections_outbox_idx. How far each consumer is behind.
SELECT consumer, tx::text AS tx, id, acknowledged_at, waiting, oldest_at
FROM recon.outbox_lag
ORDER BY consumer;
