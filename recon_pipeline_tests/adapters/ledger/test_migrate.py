"""Migrations bring any database to the same state, once, whoever starts at the same time."""

from __future__ import annotations

from recon_pipeline.ledger.migrate import migrate


def test_a_second_migration_has_nothing_to_do(empty_database_url):
    assert migrate(empty_database_url) == [
        "0001_bot_tables",
        "0002_backfill_audit",
        "0003_recon_tables",
        "repeatable/10_conversions",
        "repeatable/20_views",
        "repeatable/30_roles",
    ]
    assert migrate(empty_database_url) == []
