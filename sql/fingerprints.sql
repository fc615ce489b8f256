-- What the bots' tables hold of a profile, in a few characters: equal before and after a dry run.

-- name: ledger_fingerprints
-- Index orders (profile_id, ...), primary keys of the other tables. One row per profile asked for.
SELECT wanted.profile_id,
       (SELECT count(*) FROM recon.lifecycle_orders AS o WHERE o.profile_id = wanted.profile_id) AS order_rows,
       (SELECT md5(coalesce(string_agg(md5(o::text), '' ORDER BY o.order_id), ''))
        FROM recon.lifecycle_orders AS o WHERE o.profile_id = wanted.profile_id) AS orders,
       (SELECT md5(coalesce(string_agg(md5(p::text), '' ORDER BY p.trade_id::text), ''))
        FROM public.positions AS p WHERE p.profile_id::text = wanted.profile_id) AS positions,
       (SELECT md5(coalesce(string_agg(md5(h::text), '' ORDER BY h.trade_id::text), ''))
        FROM public.trade_history AS h WHERE h.profile_id::text = wanted.profile_id) AS trade_history,
       (SELECT md5(coalesce(string_agg(md5(c::text), '' ORDER BY c.trade_id::text), ''))
        FROM public.capital_ledger AS c WHERE c.profile_id::text = wanted.profile_id) AS capital_ledger
FROM unnest(:'profile_ids'::text[]) AS wanted (profile_id)
ORDER BY wanted.profile_id;
