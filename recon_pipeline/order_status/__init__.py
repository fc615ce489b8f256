"""The order status sync and the stream of order events, without Dagster: what is asked, decided, written and remembered."""
