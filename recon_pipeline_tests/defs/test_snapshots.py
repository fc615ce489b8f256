"""Frames to Parquet and back: nothing is rounded, nothing changes its type."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recon_pipeline.defs.snapshots import RunSnapshots, SnapshotError, to_table
from recon_pipeline.domain.frames import DECISIONS, EXCHANGE_ORDERS, NO_TIME, POSITIONS, PROFILES, PROPOSALS, Schema

BEYOND_INT64 = 123_456_789_012_345_678_901_234_567
BEYOND_DECIMAL128 = 10**68 + 1


@pytest.fixture
def snapshots(tmp_path: Path) -> RunSnapshots:
    return RunSnapshots.of_run(str(tmp_path), "run-1", datetime(2026, 11, 20, tzinfo=UTC))


def positions(*quantities: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "account_id": pd.Series(["a"] * len(quantities), dtype=object),
            "symbol": pd.Series(["SHIB/USD"] * len(quantities), dtype=object),
            "symbol_token": pd.Series(["SHIBUSD"] * len(quantities), dtype=object),
            "qty_e9": pd.Series(list(quantities), dtype=object),
            "known": [True] * len(quantities),
        }
    )


@pytest.mark.parametrize("quantity", [0, -1, 2**63 - 1, 2**63, BEYOND_INT64, -BEYOND_INT64, BEYOND_DECIMAL128])
def test_a_quantity_of_any_size_comes_back_to_the_last_unit(snapshots: RunSnapshots, quantity: int):
    snapshots.write("p", POSITIONS, positions(1, quantity))
    assert [int(value) for value in snapshots.read("p", POSITIONS)["qty_e9"]] == [1, quantity]


def test_quantities_have_one_type_in_every_file_that_a_query_may_join(snapshots: RunSnapshots):
    for values in ((1,), (BEYOND_INT64,), ()):
        assert to_table(POSITIONS, positions(*values)).schema.field("qty_e9").type == pa.decimal128(38, 0)


@pytest.mark.parametrize("price", ["0.000000000000000000000000000001", "96304.10", "1e40", "-3.5", None])
def test_a_price_comes_back_exactly_and_a_missing_one_stays_missing(snapshots: RunSnapshots, price: str | None):
    frame = EXCHANGE_ORDERS.empty()
    row = dict.fromkeys(frame.columns, "") | {
        "crypto": True,
        "executed_e9": 1,
        "price": None if price is None else Decimal(price),
        "executed_at_ms": NO_TIME,
    }
    frame = pd.DataFrame([row], columns=EXCHANGE_ORDERS.names).astype({"executed_at_ms": "int64"})
    snapshots.write("o", EXCHANGE_ORDERS, frame)
    back = snapshots.read("o", EXCHANGE_ORDERS).iloc[0]
    assert back["price"] == row["price"]
    assert type(back["price"]) is type(row["price"])


@pytest.mark.parametrize("instant", [NO_TIME, 0, -1, 1_795_212_000_123, 253_402_300_799_999])
def test_an_instant_comes_back_to_the_millisecond_and_an_unknown_one_stays_unknown(
    snapshots: RunSnapshots, instant: int
):
    row = dict.fromkeys(EXCHANGE_ORDERS.names, "") | {
        "crypto": False,
        "executed_e9": 1,
        "price": None,
        "executed_at_ms": instant,
    }
    snapshots.write("o", EXCHANGE_ORDERS, pd.DataFrame([row]))
    assert snapshots.read("o", EXCHANGE_ORDERS)["executed_at_ms"].tolist() == [instant]
    stored = pq.read_table(snapshots.path("o")).column("executed_at_ms")
    assert (stored.null_count == 1) == (instant == NO_TIME)


def test_symbols_in_scope_come_back_as_none_or_as_they_were(snapshots: RunSnapshots):
    rows = [
        {"profile_id": name, "user_id": "u", "account_id": "a", "selected": True, "paused": True, "audit_available": True,
         "evidence_defect": "", "managed_symbols": symbols, "batch_id": ""}
        for name, symbols in (("all", None), ("none", ()), ("two", ("AAPL", "BTC/USD")))
    ]  # fmt: skip
    snapshots.write("p", PROFILES, pd.DataFrame(rows))
    assert snapshots.read("p", PROFILES)["managed_symbols"].tolist() == [None, (), ("AAPL", "BTC/USD")]


@pytest.mark.parametrize("schema", [POSITIONS, PROFILES, PROPOSALS, DECISIONS, EXCHANGE_ORDERS], ids=lambda s: s.name)
def test_an_empty_frame_comes_back_typed_like_an_empty_frame(snapshots: RunSnapshots, schema: Schema):
    snapshots.write("e", schema, schema.empty())
    back = snapshots.read("e", schema)
    assert back.dtypes.to_dict() == schema.empty().dtypes.to_dict()
    assert len(back) == 0


def test_a_column_says_its_unit_in_the_file(snapshots: RunSnapshots):
    snapshots.write("p", POSITIONS, positions(1))
    field = pq.read_schema(snapshots.path("p")).field("qty_e9")
    assert field.metadata == {
        b"description": b"signed quantity held, short negative",
        b"unit": b"1e-9 units of the asset",
    }


def test_a_file_is_whole_or_not_there(snapshots: RunSnapshots, tmp_path: Path):
    snapshots.write("p", POSITIONS, positions(1))
    assert sorted(path.name for path in (tmp_path / "2026-11-20" / "run-1").iterdir()) == ["p.parquet"]
    with pytest.raises(SnapshotError, match=r"q\.parquet can't be read"):
        snapshots.read("q", POSITIONS)
