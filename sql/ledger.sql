-- What the pipeline reads of the bots' tables and of its own records of them. Nothing here writes.

-- name: select_profiles
-- Reads the table profiles whole: it has one row per bot. NULL for profile_ids means all.
SELECT profile_id, user_id, account_id, enabled, managed_symbols, allocated_capital_usd
FROM recon.profile_accounts
WHERE :'profile_ids'::text[] IS NULL OR profile_id = ANY(:'profile_ids'::text[])
ORDER BY profile_id;

-- name: select_account_siblings
-- Every profile on the accounts of the given ones, they themselves included. Reads the table profiles whole, twice.
SELECT profile_id, user_id, account_id, enabled, managed_symbols, allocated_capital_usd
FROM recon.profile_accounts
WHERE account_id IN (
  SELECT account_id FROM recon.profile_accounts WHERE profile_id = ANY(:'profile_ids'::text[])
)
ORDER BY profile_id;

-- name: select_lifecycle_rows
-- Index orders (profile_id, ...). All rows of the profiles but those that are over and executed nothing; backfill rows and
-- synthetic exits of any status, for a canceled one says that it was reverted or superseded.
SELECT profile_id, user_id, order_id, client_order_id, symbol, side, action, qty, quantity, filled_qty, price, status,
       time_ms AS "timestamp", created_at, updated_at, filled_at, trade_id, sub_tag, source
FROM recon.lifecycle_orders
WHERE profile_id = ANY(:'profile_ids'::text[])
  AND (
    order_id LIKE 'BFILL-%'
    OR order_id LIKE 'PARITY-%'
    OR status IS NULL
    OR lower(translate(trim(status), '- ', '__')) <> ALL(:'unfilled_statuses'::text[])
    OR filled_qty ~ '[^-+0.]'
  )
ORDER BY profile_id, order_id;

-- name: select_orders_by_id
-- Unique index orders (order_id).
SELECT profile_id, user_id, order_id, client_order_id, symbol, side, action, qty, quantity, filled_qty, price, status,
       time_ms AS "timestamp", created_at, filled_at, trade_id, sub_tag, source
FROM recon.lifecycle_orders
WHERE order_id = ANY(:'order_ids'::text[])
ORDER BY order_id;

-- name: select_rows_naming_orders
-- Unique index orders (order_id), index orders (client_order_id). Rows that carry one of the ids in either column, whatever their
-- profile and status: an order is missing in the ledger only where none of them is there.
SELECT profile_id, user_id, order_id, client_order_id, symbol, side, action, qty, quantity, filled_qty, price, status,
       time_ms AS "timestamp", created_at, updated_at, filled_at, trade_id, sub_tag, source
FROM recon.lifecycle_orders
WHERE order_id = ANY(:'exchange_ids'::text[])
UNION
SELECT profile_id, user_id, order_id, client_order_id, symbol, side, action, qty, quantity, filled_qty, price, status,
       time_ms AS "timestamp", created_at, updated_at, filled_at, trade_id, sub_tag, source
FROM recon.lifecycle_orders
WHERE client_order_id = ANY(:'exchange_ids'::text[])
ORDER BY profile_id, order_id;

-- name: select_sub_tag_supported
-- System catalogs only. Whether the bots' table has a place for sub-tags.
SELECT recon.column_type('public.orders'::regclass, 'sub_tag') IS NOT NULL AS supported;

-- name: select_consumption
-- Index consumption_live_account_idx.
SELECT account_id, exchange_order_id, backfill_order_id, profile_id, trade_id, batch_id, qty, created_at
FROM recon.consumption
WHERE account_id = ANY(:'account_ids'::text[]) AND released_at IS NULL
ORDER BY account_id, exchange_order_id, backfill_order_id;

-- name: select_trading_control
-- Primary key trading_control (scope).
SELECT scope, state, source, since, reason
FROM public.trading_control
WHERE scope = 'all' OR scope = ANY(:'profile_ids'::text[]);

-- name: select_audit_available
-- System catalogs only. True where the audit table has the given columns and the current role may add rows.
SELECT count(a.attname) = cardinality(:'columns'::text[])
         AND coalesce(bool_and(has_table_privilege(a.attrelid, 'INSERT')), false) AS available
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid = to_regclass('public.reconciliation_backfill_audit')
  AND a.attname = ANY(:'columns'::text[]) AND a.attnum > 0 AND NOT a.attisdropped;
