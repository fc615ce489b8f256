-- Which message tells an event: the id of the first event that it is told with, set once before the first attempt, so that
-- another attempt tells the same events under the same key. NULL: not assigned yet, or kept to the log.

ALTER TABLE recon.events ADD COLUMN message_id bigint;
CREATE INDEX events_message_idx ON recon.events (message_id) WHERE delivered_at IS NULL;
