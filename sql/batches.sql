-- Planned batches and what became of them.

-- name: insert_batches
-- Primary key of recon.batches; a batch id that exists is left alone and not returned.
INSERT INTO recon.batches (
  batch_id, profile_id, account_id, kind, state, digest, reviewed_digest, plan, conservation, run_id
)
SELECT batch_id, profile_id, account_id, kind, coalesce(state, 'PLANNED'), digest, reviewed_digest, plan, conservation, run_id
FROM jsonb_to_recordset(:'batches'::jsonb) AS r (
  batch_id text, profile_id text, account_id text, kind text, state text, digest text, reviewed_digest text, plan jsonb,
  conservation jsonb, run_id text
)
ON CONFLICT (batch_id) DO NOTHING
RETURNING batch_id;

-- name: update_batch_state
-- Primary key; row lock on the batch. Compare-and-set: changes nothing unless the batch is in one of from_states.
UPDATE recon.batches
SET state           = :'state',
    reviewed_digest = coalesce(:'reviewed_digest', reviewed_digest),
    error           = :'error',
    updated_at      = now(),
    applied_at      = CASE WHEN :'state' = 'APPLIED' THEN now() ELSE applied_at END,
    reverted_at     = CASE WHEN :'state' IN ('REVERTED', 'PARTLY_REVERTED') THEN now() ELSE reverted_at END
WHERE batch_id = :'batch_id' AND state = ANY(:'from_states'::text[])
RETURNING batch_id, state;

-- name: select_batch
-- Primary key of recon.batches.
SELECT batch_id, profile_id, account_id, kind, state, digest, reviewed_digest, plan, conservation, run_id, error,
       created_at, updated_at, applied_at, reverted_at
FROM recon.batches
WHERE batch_id = :'batch_id';

-- name: select_latest_batch
-- Index batches_profile_created_idx. The newest batch of a profile of the given kind, in any of the given states.
SELECT batch_id, profile_id, account_id, kind, state, digest, reviewed_digest, run_id, error,
       created_at, updated_at, applied_at, reverted_at
FROM recon.batches
WHERE profile_id = :'profile_id' AND kind = :'kind' AND state = ANY(:'states'::text[])
ORDER BY created_at DESC, batch_id DESC
LIMIT 1;

-- name: select_stuck_batches
-- Index batches_pending_idx. Announced as being applied, and no outcome since.
SELECT batch_id, profile_id, account_id, kind, state, digest, run_id, created_at, updated_at,
       extract(epoch FROM now() - updated_at)::bigint AS age_seconds
FROM recon.batches
WHERE state = 'PENDING_APPLY' AND updated_at < now() - make_interval(secs => :'older_than_seconds'::double precision)
ORDER BY updated_at, batch_id;
