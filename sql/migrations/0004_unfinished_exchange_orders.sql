-- Every reading looks again at the orders that may still execute; they are few among many.

CREATE INDEX exchange_orders_unfinished_idx ON recon.exchange_orders (account_id)
  WHERE coalesce(status, '') NOT IN ('filled', 'canceled', 'expired', 'replaced', 'rejected');
