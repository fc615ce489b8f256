"""Invariant 7 in a real database: apply, touch some rows, roll back; seeded books, each a profile and account of its own."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest

from recon_pipeline.apply import ApplyState, verify_batch
from recon_pipeline_tests.adapters.apply.book import LEDGER_TABLES, Book

KEYS = {
    "orders": ("order_id",),
    "positions": ("trade_id",),
    "trade_history": ("trade_id",),
    "capital_ledger": ("trade_id",),
}
TOUCHES = {
    "orders": "price = price + 1",
    "positions": "avg_entry_price = avg_entry_price + 1",
    "trade_history": "fees_usd = fees_usd + 1",
    "capital_ledger": "reserved_usd = reserved_usd + 1",
}


def images(book: Book, profile_id: str) -> dict[tuple[str, str], Any]:
    """Every row of the profile by table and key, without the time of its last touch."""
    found: dict[tuple[str, str], Any] = {}
    for table in LEDGER_TABLES:
        (key,) = KEYS[table]
        for row in book.rows(f"SELECT * FROM {table} WHERE profile_id = %s", profile_id):
            found[table, row[key]] = {name: value for name, value in row.items() if name != "updated_at"}
    return found


def random_book(book: Book, profile_id: str, account_id: str, choose: random.Random) -> None:
    """A few trades, long and short, closed at the exchange in whole, in part or not at all; some exits recorded."""
    book.profile(profile_id, account_id)
    for number in range(choose.randint(1, 4)):
        trade_id = f"t{number}"
        side = choose.choice(["BUY", "SELL"])
        back = "SELL" if side == "BUY" else "BUY"
        parts = [
            Decimal(choose.randint(1, 10**7)) / choose.choice([1, 10**3, 10**9]) for _ in range(choose.randint(1, 4))
        ]
        entry = Decimal(choose.randint(1, 10**6)) / 10**4
        book.trade(trade_id, str(sum(parts)), price=str(entry), side=side, profile_id=profile_id, symbol=f"S{number}")
        for index, part in enumerate(parts):
            price = str(Decimal(choose.randint(1, 10**6)) / 10**4)
            name = f"{profile_id}-{trade_id}-{index}"
            fate = choose.choice(["lost", "lost", "recorded", "open"])
            if fate != "open":
                book.executed(
                    name,
                    trade_id,
                    str(part),
                    price=price,
                    side=back.lower(),
                    profile_id=profile_id,
                    account_id=account_id,
                    symbol=f"S{number}",
                    suffix=f"-exit-{index}",
                )
            if fate == "recorded":
                book.record(
                    name,
                    trade_id,
                    back,
                    str(part),
                    price=price,
                    action="EXIT",
                    profile_id=profile_id,
                    symbol=f"S{number}",
                )


@pytest.mark.parametrize("block", range(3))
def test_apply_then_rollback_restores_every_untouched_row_of_random_books(database_url: str, block: int):
    book = Book(database_url)
    applied = 0
    for seed in range(block * 12, block * 12 + 12):
        choose = random.Random(seed)
        profile_id, account_id = f"p{seed}", f"a{seed}"
        random_book(book, profile_id, account_id, choose)
        before = images(book, profile_id)
        plan = book.plan(profile_id, batch=f"B{seed}")
        result = book.apply(plan)
        if result.state is ApplyState.NOTHING_TO_APPLY:
            assert images(book, profile_id) == before
            continue
        applied += 1
        assert result.state is ApplyState.APPLIED, result.detail
        assert verify_batch(book.url, plan.batch_id).passed
        assert book.plan(profile_id, batch="again").proposals.empty
        after = images(book, profile_id)
        changed = sorted(key for key in after if after[key] != before.get(key))
        touched = set(choose.sample(changed, choose.randint(0, len(changed)) if choose.random() < 0.6 else 0))
        for table, key in touched:
            book.run(
                f"UPDATE {table} SET {TOUCHES[table]} WHERE profile_id = %s AND {KEYS[table][0]} = %s", profile_id, key
            )
        now = images(book, profile_id)

        rolled = book.rollback(plan.batch_id)

        kept = {(row.table, row.key[-1]) for row in rolled.refused_rows}
        stuck_trades = {after[key]["trade_id"] for key in touched if key[0] == "orders"}
        end = images(book, profile_id)
        assert touched <= kept, seed
        for key, row in end.items():
            if key in touched or key not in changed:
                assert row == now[key], (seed, key)
            elif key[0] == "orders":
                assert row == after[key] | {"status": "canceled"}, (seed, key)
            elif row["trade_id"] in stuck_trades:
                assert row == after[key], (seed, key)
                assert key in kept
            else:
                assert row == before[key], (seed, key)
                assert key not in kept
        assert set(end) == set(after), "nothing was deleted"
        assert rolled.state.value == (
            "reverted" if not kept else "partly_reverted" if not rolled.plan.empty else "nothing_reverted"
        )
    assert applied >= 6
