"""Events of the stream as values: what is read of them, which are the same, which say most, which need a whole cycle."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.order_events import (
    CycleReason,
    cycle_reason,
    disputes,
    latest_record,
    read_event,
    record_of,
)


def message(event: str = "fill", execution: str | None = "e1", **more: Any) -> dict[str, Any]:
    order = {"id": "o1", "client_order_id": "c1", "status": "filled", "filled_qty": "8"}
    data = {"event": event, "timestamp": "2026-11-03T15:00:00.123456789Z", "order": order, **more}
    return {"stream": "trade_updates", "data": data if execution is None else {**data, "execution_id": execution}}


def key(said: dict[str, Any]) -> str:
    event = read_event(said, "A1")
    assert event is not None
    return event.event_key


def test_an_event_is_read_with_its_order_and_its_instant_cut_to_milliseconds():
    event = read_event(message(price=Decimal("1.10")), "A1")
    assert event is not None
    assert (event.account_id, event.event, event.order_id, event.client_order_id) == ("A1", "fill", "o1", "c1")
    assert event.happened_at_ms == 1_793_718_000_123
    assert event.raw["price"] == Decimal("1.10")
    assert record_of(event.raw)["filled_qty"] == "8"


@pytest.mark.parametrize("said", [{}, {"stream": "listening", "data": {"streams": ["trade_updates"]}}, {"data": {}}])
def test_a_message_of_another_kind_is_no_event(said):
    assert read_event(said, "A1") is None


def test_the_same_event_told_again_has_the_same_key_and_a_bust_of_that_execution_another():
    assert key(message()) == key(message(price="other"))
    assert len({key(message()), key(message("trade_bust")), key(message(execution="e2"))}) == 3


def test_without_an_execution_id_what_says_the_same_is_the_same():
    first = message("canceled", None)
    assert key(first) == key(json.loads(json.dumps(first, sort_keys=True)))
    assert key(first) != key(message("canceled", None, timestamp="2026-11-03T15:00:01Z"))


def test_a_key_is_never_longer_than_an_index_takes():
    assert len(key(message(execution="e" * 100_000))) < 100
    assert key(message(execution="e" * 100_000)) != key(message(execution="e" * 99_999))


@pytest.mark.parametrize(
    ("event", "order_id", "reason"),
    [
        ("fill", "o1", None),
        ("pending_cancel", "o1", None),
        ("replaced", "o1", CycleReason.REPLACED),
        ("trade_bust", "o1", CycleReason.DISPUTED),
        ("trade_correct", "o1", CycleReason.DISPUTED),
        ("restated", "o1", CycleReason.DISPUTED),
        ("fill", "", CycleReason.UNREADABLE),
        ("", "o1", CycleReason.UNREADABLE),
    ],
)
def test_what_the_record_alone_can_t_prove_needs_a_cycle(event, order_id, reason):
    assert cycle_reason(event, order_id) is reason


def test_a_word_that_is_not_known_disputes_what_was_said_before():
    assert [name for name in ("fill", "replaced", "trade_bust", "something_new") if disputes(name)] == [
        "trade_bust",
        "something_new",
    ]


RECORDS = [
    {"status": "new", "filled_qty": "0", "updated_at": "2026-11-03T15:00:00Z"},
    {"status": "partially_filled", "filled_qty": "3", "updated_at": "2026-11-03T15:00:01Z"},
    {"status": "pending_cancel", "filled_qty": "3", "updated_at": "2026-11-03T15:00:02Z"},
    {"status": "canceled", "filled_qty": "3", "updated_at": "2026-11-03T15:00:03Z"},
]


@pytest.mark.parametrize("told", [*itertools.permutations(RECORDS)])
def test_in_whatever_order_records_arrive_the_one_that_says_most_counts(told):
    assert latest_record(told)["status"] == "canceled"


def test_what_executed_more_says_more_than_what_was_changed_later():
    assert latest_record([{**RECORDS[1], "filled_qty": "8"}, RECORDS[2]])["filled_qty"] == "8"
    assert latest_record([{"status": "filled"}, RECORDS[0]]) == RECORDS[0], "no quantity says nothing"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.decimals(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.dictionaries(st.sampled_from(["event", "execution_id", "order", "timestamp", "qty"]), JSON)
    | st.builds(
        lambda order: {"event": "fill", "order": order}, st.dictionaries(st.sampled_from(["id", "status"]), JSON)
    )
    | JSON
)
def test_whatever_arrives_is_an_event_that_can_be_stored(data):
    event = read_event({"stream": "trade_updates", "data": data}, "A1")
    assert event is not None
    stored = json.dumps(event.raw, default=str, ensure_ascii=False) + event.event_key + event.order_id + event.event
    assert "\0" not in stored
    assert "\\u0000" not in stored
    stored.encode()
    assert len(event.event_key) <= 200
    latest_record([record_of(event.raw)])


def test_characters_that_no_database_keeps_are_replaced():
    event = read_event(message(note="a\0b\ud800c", execution="\ud800"), "A1")
    assert event is not None
    assert event.raw["note"] == "a�b�c"
    assert event.event_key == "fill:�"


def test_an_event_without_an_instant_has_none():
    event = read_event(message(timestamp="soon"), "A1")
    assert event is not None
    assert event.happened_at_ms == NO_TIME
