"""The exchange side: the gateway protocol, the Alpaca client and the ingestion of executions."""
