-- recon.corrections as the bots' outbox: see docs/outbox.md for the contract.
--
-- Ids are taken when a row is inserted and rows appear when their transaction commits, so a reader that remembers the last id
-- may pass over a row that was slower. Every row therefore carries its transaction, and the outbox shows only transactions
-- before which none is still at work: in the order (tx, id) nothing ever appears before what was shown.

ALTER TABLE recon.corrections ADD COLUMN tx xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX corrections_outbox_idx ON recon.corrections (tx, id);

CREATE TABLE recon.outbox_consumers (
  consumer        text PRIMARY KEY CHECK (consumer <> ''),
  tx              xid8 NOT NULL,                             -- up to and with this row everything was acknowledged
  id              bigint NOT NULL,
  acknowledged_at timestamptz NOT NULL DEFAULT now()
);

CREATE VIEW recon.outbox AS
SELECT tx, id, batch_id, profile_id, cause ->> 'kind' AS kind, cause ->> 'handler' AS handler, cause ->> 'trade_id' AS trade_id,
       table_name, row_key, before, after, cause, created_at
FROM recon.corrections
WHERE tx < pg_snapshot_xmin(pg_current_snapshot());

CREATE VIEW recon.outbox_lag AS
SELECT k.consumer, k.tx, k.id, k.acknowledged_at, w.waiting, w.oldest_at
FROM recon.outbox_consumers AS k
CROSS JOIN LATERAL (
  SELECT count(*) AS waiting, min(o.created_at) AS oldest_at FROM recon.outbox AS o WHERE (o.tx, o.id) > (k.tx, k.id)
) AS w;

-- What the consumer has not acknowledged yet, oldest first; of a new consumer everything. Runs with the owner's rights: a bot
-- needs USAGE on the schema and nothing else.
CREATE FUNCTION recon.read_outbox(for_consumer text, row_limit integer DEFAULT 100) RETURNS SETOF recon.outbox
  LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
  at recon.outbox_consumers;
BEGIN
  IF (SELECT c.tx FROM recon.corrections AS c ORDER BY c.tx DESC LIMIT 1) >= pg_snapshot_xmax(pg_current_snapshot()) THEN
    RAISE EXCEPTION 'the outbox was restored from another server, whose transactions are counted otherwise'
      USING HINT = 'As the owner: SELECT recon.rebase_outbox();';
  END IF;
  SELECT * INTO at FROM recon.outbox_consumers AS k WHERE k.consumer = for_consumer;
  IF NOT FOUND THEN
    RETURN QUERY SELECT * FROM recon.outbox AS o ORDER BY o.tx, o.id LIMIT row_limit;
  ELSE
    RETURN QUERY SELECT * FROM recon.outbox AS o WHERE (o.tx, o.id) > (at.tx, at.id) ORDER BY o.tx, o.id LIMIT row_limit;
  END IF;
END
$$;

-- Everything up to and with this row is done. Only ever forward; true where the position moved.
CREATE FUNCTION recon.acknowledge_outbox(for_consumer text, row_tx xid8, row_id bigint) RETURNS boolean
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  IF NOT EXISTS (SELECT FROM recon.outbox AS o WHERE o.tx = row_tx AND o.id = row_id) THEN
    RAISE EXCEPTION 'the outbox has no row (%, %): acknowledge what was read', row_tx, row_id;
  END IF;
  INSERT INTO recon.outbox_consumers AS k (consumer, tx, id) VALUES (for_consumer, row_tx, row_id)
  ON CONFLICT (consumer) DO UPDATE SET tx = excluded.tx, id = excluded.id, acknowledged_at = now()
  WHERE (k.tx, k.id) < (excluded.tx, excluded.id);
  RETURN FOUND;
END
$$;

-- After a restore into another server: the rows of before in the order of their ids, and every consumer before the first of
-- them that it may not have acknowledged.
CREATE FUNCTION recon.rebase_outbox() RETURNS void
  LANGUAGE plpgsql VOLATILE AS
$$
BEGIN
  LOCK TABLE recon.corrections, recon.outbox_consumers IN SHARE ROW EXCLUSIVE MODE;
  UPDATE recon.outbox_consumers AS k
  SET tx = '0', id = coalesce(
    (SELECT min(c.id) - 1 FROM recon.corrections AS c WHERE (c.tx, c.id) > (k.tx, k.id)),
    (SELECT max(c.id) FROM recon.corrections AS c), 0);
  UPDATE recon.corrections SET tx = '0';
END
$$;
