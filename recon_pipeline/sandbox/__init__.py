"""The sandbox: an embedded Postgres, a simulated Alpaca and the demo book with its known truth."""
