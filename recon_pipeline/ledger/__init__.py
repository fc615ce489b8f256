"""The ledger side: Postgres connections, statements, migrations, reads, the evidence store and leases."""
