-- Leases: one row per profile that is never deleted, so its fencing token only grows. Each of these is one statement, so
-- they work through a transaction pooler. Time is the server's.

-- name: acquire_leases
-- Primary key of recon.leases; row locks in the order of the ids, on the rows taken only. A row that another session holds
-- locked is contended, not waited for. Returns what was taken; a profile that is missing from it is held by somebody else.
WITH wanted AS (
  SELECT DISTINCT profile_id FROM unnest(:'profile_ids'::text[]) AS w(profile_id)
),
free AS (
  SELECT l.profile_id
  FROM recon.leases AS l
  WHERE l.profile_id = ANY(:'profile_ids'::text[])
    AND (l.expires_at <= clock_timestamp() OR l.owner = :'owner')
  ORDER BY l.profile_id
  FOR UPDATE SKIP LOCKED
),
takeable AS (
  SELECT profile_id FROM free
  UNION ALL
  SELECT w.profile_id FROM wanted AS w WHERE NOT EXISTS (SELECT FROM recon.leases AS l WHERE l.profile_id = w.profile_id)
)
INSERT INTO recon.leases AS l (profile_id, owner, token, expires_at, renewed_at)
SELECT profile_id, :'owner', 1, clock_timestamp() + make_interval(secs => :'ttl_seconds'::double precision), clock_timestamp()
FROM takeable
ORDER BY profile_id
ON CONFLICT (profile_id) DO UPDATE
SET owner = excluded.owner, token = l.token + 1, expires_at = excluded.expires_at, renewed_at = excluded.renewed_at
WHERE l.expires_at <= clock_timestamp() OR l.owner = excluded.owner
RETURNING l.profile_id, l.owner, l.token, l.expires_at;

-- name: renew_leases
-- Primary key of recon.leases; row locks in the order of the ids. Returns what was renewed: a lease whose token has moved on
-- is lost; one that merely expired, and that nobody took, is not.
WITH held AS (
  SELECT l.profile_id
  FROM recon.leases AS l
  JOIN unnest(:'profile_ids'::text[], :'tokens'::bigint[]) AS h(profile_id, token) USING (profile_id, token)
  WHERE l.owner = :'owner'
  ORDER BY l.profile_id
  FOR NO KEY UPDATE OF l
)
UPDATE recon.leases AS l
SET expires_at = clock_timestamp() + make_interval(secs => :'ttl_seconds'::double precision), renewed_at = clock_timestamp()
FROM held
WHERE l.profile_id = held.profile_id
RETURNING l.profile_id, l.owner, l.token, l.expires_at;

-- name: release_leases
-- Primary key of recon.leases; row locks in the order of the ids. Only what is still ours; the token stays.
WITH held AS (
  SELECT l.profile_id
  FROM recon.leases AS l
  JOIN unnest(:'profile_ids'::text[], :'tokens'::bigint[]) AS h(profile_id, token) USING (profile_id, token)
  WHERE l.owner = :'owner'
  ORDER BY l.profile_id
  FOR NO KEY UPDATE OF l
)
UPDATE recon.leases AS l
SET owner = '', expires_at = clock_timestamp()
FROM held
WHERE l.profile_id = held.profile_id
RETURNING l.profile_id;

-- name: check_lease
-- Primary key of recon.leases; a shared row lock, held to the end of the transaction: until then nobody can take the lease.
SELECT profile_id, owner, token, expires_at
FROM recon.leases
WHERE profile_id = :'profile_id' AND owner = :'owner' AND token = :'token'::bigint AND expires_at > clock_timestamp()
FOR SHARE;
