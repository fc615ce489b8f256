"""Invariant 7: apply, then roll back, restores every row that nobody else touched, and leaves every row that somebody did."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from recon_pipeline.domain.rollback import (
    AuditedRow,
    Correction,
    Refusal,
    RollbackInputs,
    RollbackPlan,
    RowKey,
    changed_columns,
    plan_rollback,
)
from recon_pipeline.domain.terms import Decision

ORDER: RowKey = ("orders", "BFILL-1")
POSITION: RowKey = ("positions", "p1", "t1")
AFTER_ORDER = {"order_id": "BFILL-1", "qty": Decimal(4), "price": Decimal(110), "status": "filled", "updated_at": "a"}
BEFORE = {"qty": Decimal(10), "status": "open", "updated_at": "a"}
AFTER = {"qty": Decimal(6), "status": "open", "updated_at": "b"}


def audited(decision: Decision = Decision.APPLIED, order_id: str = "BFILL-1", audit_id: int = 7) -> AuditedRow:
    return AuditedRow(audit_id, decision, order_id, "t1", {"qty": Decimal(4), "price": Decimal(110)})


CORRECTIONS = (Correction(1, "orders", ORDER, None, AFTER_ORDER), Correction(2, "positions", POSITION, BEFORE, AFTER))


def plan(current: dict[RowKey, dict[str, Any]], **more: Any) -> RollbackPlan:
    arguments: dict[str, Any] = {"audited": (audited(),), "corrections": CORRECTIONS, "current": current}
    return plan_rollback(RollbackInputs("B1", **(arguments | more)))


def test_untouched_rows_go_back():
    made = plan({ORDER: AFTER_ORDER, POSITION: AFTER})
    assert [(change.key, change.restored) for change in made.changes] == [
        (ORDER, {"status": "canceled"}),
        (POSITION, {"qty": Decimal(10)}),
    ]
    assert (made.audit_ids, made.released, made.correction_ids) == ((7,), ("BFILL-1",), (1, 2))
    assert made.complete


def test_a_column_that_was_added_since_is_no_change():
    assert changed_columns({**AFTER, "new_column": 1}, AFTER) == ()


def test_a_changed_order_stays_and_takes_the_image_of_its_trade_with_it():
    made = plan({ORDER: {**AFTER_ORDER, "qty": Decimal(5)}, POSITION: AFTER})
    assert made.changes == ()
    assert [(row.key, row.reason, row.changed_columns) for row in made.refused] == [
        (ORDER, Refusal.CHANGED_SINCE, ("qty",)),
        (POSITION, Refusal.TRADE_PARTLY_REVERTED, ()),
    ]
    assert (made.audit_ids, made.released, made.correction_ids) == ((), (), ())


def test_a_changed_image_stays_and_the_order_goes_back():
    made = plan({ORDER: AFTER_ORDER, POSITION: {**AFTER, "qty": Decimal(7)}})
    assert [change.key for change in made.changes] == [ORDER]
    assert [(row.key, row.reason) for row in made.refused] == [(POSITION, Refusal.CHANGED_SINCE)]


def test_rows_that_are_gone_are_named():
    made = plan({})
    assert {row.reason for row in made.refused} == {Refusal.ROW_MISSING}
    assert made.empty


def test_a_row_found_there_belongs_to_the_live_batch_that_inserted_it():
    made = plan(
        {ORDER: AFTER_ORDER},
        audited=(audited(Decision.SKIP_EXISTING),),
        corrections=(),
        inserted_elsewhere=frozenset({"BFILL-1"}),
    )
    assert (made.changes, [row.reason for row in made.refused]) == ((), [Refusal.INSERTED_BY_ANOTHER_BATCH])


def test_a_row_found_there_that_nobody_answers_for_goes_back_if_it_is_as_audited():
    arguments: dict[str, Any] = {"audited": (audited(Decision.SKIP_EXISTING),), "corrections": ()}
    assert [c.restored for c in plan({ORDER: AFTER_ORDER}, **arguments).changes] == [{"status": "canceled"}]
    changed = plan({ORDER: {**AFTER_ORDER, "price": Decimal(1)}}, **arguments)
    assert [(row.reason, row.changed_columns) for row in changed.refused] == [(Refusal.NOT_AS_AUDITED, ("price",))]


def test_a_row_inserted_by_this_batch_is_its_own_even_where_another_batch_reapplied_it_before():
    made = plan({ORDER: AFTER_ORDER, POSITION: AFTER}, inserted_elsewhere=frozenset({"BFILL-1"}))
    assert [change.key for change in made.changes] == [ORDER, POSITION]


def test_several_corrections_of_one_row_unwind_in_their_order():
    last = {**AFTER, "qty": Decimal(0), "status": "closed"}
    made = plan(
        {ORDER: AFTER_ORDER, POSITION: last},
        corrections=(*CORRECTIONS, Correction(3, "positions", POSITION, AFTER, last)),
    )
    restored: dict[str, Any] = {}
    for change in made.changes:
        if change.key == POSITION:
            restored |= change.restored
    assert restored == {"qty": Decimal(10), "status": "open"}
    assert made.complete


def test_nothing_is_left_to_do_the_second_time():
    made = plan({}, audited=(), corrections=())
    assert made.empty
    assert made.complete


# -- the property

values = st.one_of(st.none(), st.integers(-9, 9).map(Decimal), st.sampled_from(["open", "closed", "x"]))
images = st.fixed_dictionaries({"qty": values, "status": values, "closed_at": values, "updated_at": st.integers()})
TABLES = ("positions", "trade_history", "capital_ledger")


@st.composite
def applied_batches(draw: st.DrawFn) -> tuple[RollbackInputs, dict[RowKey, dict[str, Any]], set[RowKey]]:
    """A batch over a random ledger, the ledger before it, and what somebody touched since."""
    trades = draw(st.lists(st.sampled_from(["t1", "t2", "t3"]), min_size=1, max_size=3, unique=True))
    before: dict[RowKey, dict[str, Any]] = {}
    current: dict[RowKey, dict[str, Any]] = {}
    rows: list[AuditedRow] = []
    corrections: list[Correction] = []
    for trade in trades:
        for number in range(draw(st.integers(1, 3))):
            order_id = f"BFILL-{trade}-{number}"
            key: RowKey = ("orders", order_id)
            image = {
                "order_id": order_id,
                "qty": Decimal(number + 1),
                "price": Decimal(5),
                "status": "filled",
                "updated_at": 0,
            }
            reapplied = draw(st.booleans())
            old = {**image, "status": "canceled"} if reapplied else None
            if old:
                before[key] = old
            rows.append(
                AuditedRow(len(rows), Decision.APPLIED, order_id, trade, {"qty": image["qty"], "price": Decimal(5)})
            )
            corrections.append(Correction(len(corrections), "orders", key, old, image))
            current[key] = image
        for table in TABLES:
            book: RowKey = (table, "p1", trade)
            before[book] = draw(images)
            after = {
                **before[book],
                **draw(st.dictionaries(st.sampled_from(["qty", "status", "closed_at"]), values)),
                "updated_at": 1,
            }
            current[book] = after
            if after != {**before[book], "updated_at": 1}:
                corrections.append(Correction(len(corrections), table, book, before[book], after))
    touched = draw(st.sets(st.sampled_from(sorted(current))))
    for key in touched:
        current[key] = {**current[key], "qty": "somebody"}
    for key in draw(st.sets(st.sampled_from(sorted(current)))):
        current[key] = {**current[key], "updated_at": 99}
    return RollbackInputs("B1", tuple(rows), tuple(corrections), current), before, touched


def _content(image: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in image.items() if name != "updated_at"}


@settings(max_examples=1000, deadline=None)
@given(applied_batches())
def test_untouched_rows_are_restored_touched_rows_are_left_and_every_row_has_an_answer(
    case: tuple[RollbackInputs, dict[RowKey, dict[str, Any]], set[RowKey]],
):
    inputs, before, touched = case
    made = plan_rollback(inputs)

    after = {key: dict(image) for key, image in inputs.current.items()}
    for change in made.changes:
        assert after[change.key] == change.current
        after[change.key] |= change.restored
    refused = {row.key: row.reason for row in made.refused}
    partly = {key[1].split("-")[1] for key in touched if key[0] == "orders"}
    corrected = {correction.key for correction in inputs.corrections}
    for key, image in after.items():
        if key in touched:
            assert image == inputs.current[key]
            assert (key in refused) is (key in corrected)
        elif key[0] == "orders":
            assert image["status"] == "canceled"
            assert key not in refused
        elif key[-1] in partly and key in corrected:
            assert refused[key] is Refusal.TRADE_PARTLY_REVERTED
            assert image == inputs.current[key]
        else:
            assert _content(image) == _content(before[key])
            assert key not in refused
    untouched_orders = {row.order_id for row in inputs.audited if ("orders", row.order_id) not in touched}
    assert set(made.released) == untouched_orders
    assert {row.order_id for row in inputs.audited if row.audit_id in made.audit_ids} == untouched_orders
    assert made.complete is (not refused)
