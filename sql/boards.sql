-- What people see of the cycle: a profile's last cycles, and the boards of all profiles. Nothing here writes.

-- name: select_last_cycles
-- Index cycle_reports (profile_id, cycle_at DESC). Newest first.
SELECT run_id, cycle_at, processed, clean, report
FROM recon.cycle_reports
WHERE profile_id = :'profile_id'
ORDER BY cycle_at DESC
LIMIT :'cycles'::bigint;
