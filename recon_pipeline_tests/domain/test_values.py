"""Single values: quantities, prices, instants, symbols, sides, actions, statuses, tags and client order ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_pipeline.domain.instants import iso_ms, parse_instant
from recon_pipeline.domain.quantities import decimal_text, decimal_text_e9, from_e9, integer_array, parse_decimal, to_e9
from recon_pipeline.domain.symbols import symbol_token
from recon_pipeline.domain.tags import client_readings, parse_sub_tag, profile_splits, tag_token
from recon_pipeline.domain.terms import normalise_action, normalise_side, normalise_status

TEN_O_CLOCK = 1_772_445_600_000


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("10", "10"),
        (" 0.5 ", "0.5"),
        ("1e-9", "0.000000001"),
        ("-6", "-6"),
        (3, "3"),
        (0.1, "0.1"),
        (1e-9, "0.000000001"),
        (Decimal("2.50"), "2.5"),
        ("+7", "7"),
    ],
)
def test_a_number_is_read_exactly(raw: object, value: str) -> None:
    assert parse_decimal(raw) == Decimal(value)


@pytest.mark.parametrize(
    "raw",
    [
        *(None, "", " ", "ten", "NaN", "Infinity", "-inf", "1_000", "1,5", "0x10", "٣", "9" * 70, "1e400", "1e-400"),
        *(True, False, float("nan"), float("inf"), Decimal("NaN"), 10**400, [], {}, b"1"),
    ],
)
def test_what_is_no_number_is_not_zero(raw: object) -> None:
    assert parse_decimal(raw) is None


@pytest.mark.parametrize(
    ("value", "units", "cut"),
    [
        ("1", 10**9, 10**9),
        ("0.000000001", 1, 1),
        ("0.0000000019", 2, 1),
        ("0.30000000000000004", 300_000_000, 300_000_000),
        ("0.29999999999999999", 300_000_000, 299_999_999),
        ("-0.0000000019", -2, -1),
        ("123456789012345678901.5", 123456789012345678901500000000, 123456789012345678901500000000),
    ],
)
def test_ledger_quantities_are_rounded_and_executed_ones_cut(value: str, units: int, cut: int) -> None:
    assert to_e9(Decimal(value)) == units
    assert to_e9(Decimal(value), floor=True) == cut


@given(st.integers(-(10**30), 10**30))
def test_units_come_back_from_their_text(units: int) -> None:
    assert to_e9(Decimal(decimal_text_e9(units))) == units
    assert from_e9(units) * 10**9 == units if abs(units) < 10**27 else True
    assert "E" not in decimal_text_e9(units).upper()


@pytest.mark.parametrize(
    ("value", "text"),
    [("1E+3", "1000"), ("1E-9", "0.000000001"), ("2.500", "2.5"), ("-0", "0"), ("100", "100"), ("0.0", "0")],
)
def test_decimal_text_is_plain(value: str, text: str) -> None:
    assert decimal_text(Decimal(value)) == text


def test_totals_beyond_int64_stay_python_ints() -> None:
    assert integer_array([2**61, 2**61]).dtype == object
    assert integer_array([2**62 - 1]).dtype == "int64"
    assert integer_array([-(2**61), 2**61]).dtype == object
    assert integer_array([10**22]).tolist() == [10**22]


@pytest.mark.parametrize(
    ("raw", "ms"),
    [
        ("2026-03-02T10:00:00Z", 0),
        ("2026-03-02T10:00:00", 0),
        ("2026-03-02 10:00:00.5+00:00", 500),
        ("2026-03-02T10:00:00.999999999Z", 999),
        ("2026-03-02T10:00:00.0009999Z", 0),
        ("2026-03-02T05:30:00.25-0430", 250),
        ("2026-03-02T12:00:00+02", 0),
        (1_772_445_600, 0),
        (1_772_445_600_123, 123),
        ("1772445600123", 123),
        (1772445600.9999, 999),
        (datetime(2026, 3, 2, 10, 0, 0, 999_999, tzinfo=UTC), 999),
        (datetime(2026, 3, 2, 12, 0, tzinfo=timezone(timedelta(hours=2))), 0),
    ],
)
def test_instants_are_cut_to_milliseconds(raw: object, ms: int) -> None:
    assert parse_instant(raw) == TEN_O_CLOCK + ms


@pytest.mark.parametrize(
    "raw",
    [
        *(None, "", "soon", "2026-13-02T10:00:00Z", "2026-03-02T25:00:00Z", 0, -5, "0", True, float("nan"), [], {}),
        *("1e400", 10**30, datetime(2026, 3, 2), "1969-12-31T23:59:59Z"),
    ],
)
def test_what_is_no_instant_is_not_now(raw: object) -> None:
    assert parse_instant(raw) is None


def test_iso_has_exactly_three_decimals() -> None:
    assert iso_ms(TEN_O_CLOCK) == "2026-03-02T10:00:00.000Z"
    assert iso_ms(TEN_O_CLOCK + 7) == "2026-03-02T10:00:00.007Z"


@given(st.integers(1, 253_402_300_799_999))
def test_instants_come_back_from_their_text(ms: int) -> None:
    assert parse_instant(iso_ms(ms)) == ms


def test_symbols_are_compared_without_separators() -> None:
    assert len({symbol_token(symbol) for symbol in ("BTC/USD", "BTCUSD", "btc-usd", " BTC_USD ")}) == 1
    assert symbol_token("BRK.B") == "BRKB"
    assert symbol_token("/") == ""


@pytest.mark.parametrize(
    ("raw", "side"),
    [
        ("buy", "BUY"),
        ("LONG", "BUY"),
        (" Sell ", "SELL"),
        ("short", "SELL"),
        ("", ""),
        (None, ""),
        ("hold", ""),
        (1, ""),
    ],
)
def test_an_unknown_side_is_no_buy(raw: object, side: str) -> None:
    assert normalise_side(raw) == side


@pytest.mark.parametrize(
    ("raw", "action"),
    [
        ("entry", "ENTRY"),
        ("Buy-To-Open", "ENTRY"),
        ("sell to close", "EXIT"),
        ("close", "EXIT"),
        (None, ""),
        (" ", ""),
        ("hold", ""),
        (1, ""),
    ],
)
def test_actions_have_closed_spellings(raw: object, action: str) -> None:
    assert normalise_action(raw) == action


def test_statuses_are_spelled_one_way() -> None:
    assert [normalise_status(raw) for raw in ("Partially-Filled", "cancelled", " DONE FOR DAY", None, 3)] == [
        "partially_filled",
        "canceled",
        "done_for_day",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("tag", "tokens"),
    [
        ("bytelyst:p1:t1", ("p1", "t1")),
        ("Bytelyst:P1", ("p1", "")),
        (" bytelyst:p1:t1 ", ("p1", "t1")),
        ("bytelyst:", None),
        ("bytelyst", None),
        ("bytelyst:p1:", None),
        ("bytelyst:p1:t1:x", None),
        ("bytelyst:p-1:t1", None),
        ("other:p1:t1", None),
        ("", None),
    ],
)
def test_only_well_formed_tags_are_ours(tag: str, tokens: tuple[str, str] | None) -> None:
    parsed = parse_sub_tag(tag)
    assert (parsed and (parsed.profile_token, parsed.trade_token)) == tokens


def test_a_tag_token_drops_all_but_letters_and_digits() -> None:
    assert tag_token("P-1_b.É7") == "p1b7"


@pytest.mark.parametrize(
    ("suffix", "readings"),
    [
        ("t1-exit", {("t1", "exit"), ("t1-exit", "")}),
        ("t1-EXIT-12", {("t1", "exit"), ("t1-EXIT-12", "")}),
        ("t1-entry", {("t1", "entry"), ("t1-entry", "")}),
        ("t1", {("t1", "")}),
        ("-exit", {("-exit", "")}),
        ("t1-exit-x", {("t1-exit-x", "")}),
        ("", set()),
    ],
)
def test_a_client_order_id_names_a_trade_with_or_without_marker(suffix: str, readings: set[tuple[str, str]]) -> None:
    assert {(key.trade_id, key.role) for key in client_readings(suffix)} == readings


def test_where_the_profile_ends_is_left_open() -> None:
    assert list(profile_splits("Bytelyst-P1-b-t1")) == [("p1", "b-t1"), ("p1-b", "t1")]
    assert list(profile_splits("someone-p1-t1")) == []
    assert list(profile_splits("bytelyst-p1-")) == []
