"""Which changes of a correction plan may be written now, judged under locks that hold until the commit.

Every change is judged by itself: one that no longer fits is postponed with a reason, the others go on. Quantities are
counted again per cited exchange order, with the same domain functions as in planning.
What does not belong here: any write, and the gates of the whole plan (``corrections``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from recon_pipeline.apply.gates import OVER_STATUSES, Representation, read_representation
from recon_pipeline.apply.outcomes import Postponed
from recon_pipeline.domain.corrections import COMPARED, CorrectionPlan, Handler, OrderChange
from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.instants import parse_instant
from recon_pipeline.domain.order_values import executed_units, inserted_values, updated_values
from recon_pipeline.domain.quantities import EPSILON_E9, parse_decimal, to_e9
from recon_pipeline.domain.readings import lifecycle_rows_frame, text_of
from recon_pipeline.domain.stand_ins import SYNTHETIC_PREFIX
from recon_pipeline.domain.terms import (
    ENTRY,
    EXIT,
    FINAL_UNFILLED_STATUSES,
    normalise_action,
    normalise_side,
    normalise_status,
)
from recon_pipeline.domain.trade_books import NOTHING, TradeState, trade_state
from recon_pipeline.ledger.database import Connection, Row
from recon_pipeline.ledger.statements import statement

_UNCITED: Final = frozenset({Handler.SYNTHETIC_EXIT, Handler.SUB_TAG})
"""Handlers whose rows represent no exchange order."""


@dataclass(frozen=True)
class Table:
    """What the table orders can hold."""

    columns: frozenset[str]
    statuses: frozenset[str]
    """labels of the status; empty where any text will do"""


@dataclass(frozen=True)
class Candidate:
    """A change that fits its row."""

    change: OrderChange
    values: Mapping[str, str | None]
    """columns to write"""
    before_image: str | None
    """the row as the database spells it; None inserts"""
    record: Mapping[str, object]
    """the row as it will read"""
    executed_before_e9: int
    executed_after_e9: int

    @property
    def grows(self) -> bool:
        """Whether the row will say that more was executed."""
        return self.executed_after_e9 > self.executed_before_e9


@dataclass
class Judgement:
    """What may be written, and why the rest may not."""

    chosen: dict[str, Candidate] = field(default_factory=dict)
    postponed: dict[str, str] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    """by cited exchange order: what the ledger must represent once this is written"""

    def postpone(self, order_ids: Iterable[str], reason: Postponed) -> None:
        """Leave these changes for the next cycle."""
        for order_id in order_ids:
            self.chosen.pop(order_id, None)
            self.postponed[order_id] = reason.value


def check_corrections(plan: CorrectionPlan) -> None:
    """The plan is one that can be judged at all.

    :raises ValueError: it has no batch id, names another profile, changes a row twice, or cites an order without saying
        what that executed
    """
    if not plan.batch_id:
        raise ValueError(f"the corrections of profile {plan.profile_id} have no batch id")
    strangers = {change.profile_id for change in plan.changes} - {plan.profile_id}
    if strangers:
        raise ValueError(
            f"batch {plan.batch_id} of profile {plan.profile_id} changes rows of {', '.join(sorted(strangers))}"
        )
    ids = [change.order_id for change in plan.changes]
    if len(set(ids)) < len(ids) or "" in ids:
        raise ValueError(f"batch {plan.batch_id} changes a row twice, or one without an id")
    unknown = {change.exchange_order_id for change in plan.changes} - {"", *plan.executed_e9}
    if unknown:
        raise ValueError(f"batch {plan.batch_id} doesn't say what {', '.join(sorted(unknown))} executed")


def read_table(connection: Connection) -> Table:
    """The columns of orders, and the labels of its status."""
    rows = connection.execute(statement("select_order_columns")).fetchall()
    labels: list[str] = next((row["labels"] for row in rows if row["column_name"] == "status"), [])
    return Table(frozenset(row["column_name"] for row in rows), frozenset(labels))


def lock_rows(connection: Connection, plan: CorrectionPlan) -> tuple[dict[str, str], dict[str, Row]]:
    """Images and view rows of what the plan changes, and of what may stand in the way of its new rows; all locked."""
    trades = sorted({change.trade_id for change in plan.changes} - {""})
    connection.execute(statement("lock_trade_orders"), {"profile_id": plan.profile_id, "trade_ids": trades})
    ids = {change.order_id for change in plan.changes}
    asked = {"order_ids": sorted(ids.union(*(_names(change, plan) for change in plan.changes if change.inserts)))}
    images = {row["order_id"]: row["image"] for row in connection.execute(statement("lock_order_images"), asked)}
    rows = {row["order_id"]: row for row in connection.execute(statement("select_orders_by_id"), asked)}
    return images, rows


def trade_states(connection: Connection, plan: CorrectionPlan) -> dict[str, tuple[TradeState, pd.DataFrame]]:
    """The trades of the plan as their rows read now, by trade."""
    trades = sorted({change.trade_id for change in plan.changes} - {""})
    records = connection.execute(
        statement("select_rows_of_trades"),
        {"profile_id": plan.profile_id, "trade_ids": trades, "over_statuses": OVER_STATUSES},
    ).fetchall()
    frame = lifecycle_rows_frame(records)
    out: dict[str, tuple[TradeState, pd.DataFrame]] = {}
    for trade_id in trades:
        rows = frame[frame["trade_id"] == trade_id].reset_index(drop=True)
        out[trade_id] = (trade_state(rows), rows)
    return out


def judge(
    plan: CorrectionPlan,
    table: Table,
    images: Mapping[str, str],
    rows: Mapping[str, Row],
    states: Mapping[str, tuple[TradeState, pd.DataFrame]],
) -> Judgement:
    """Judge each change against its row and its trade.

    :raises ValueError: a change writes quantity that it cites no order for, or takes executed quantity away
    """
    judgement = Judgement()
    for change in plan.changes:
        found = _candidate(plan, change, table, images, rows)
        if isinstance(found, Candidate):
            judgement.chosen[change.order_id] = found
        else:
            judgement.postpone([change.order_id], found)
    _judge_trades(judgement, states)
    return judgement


def judge_evidence(connection: Connection, plan: CorrectionPlan, judgement: Judgement, rows: Mapping[str, Row]) -> None:
    """Per cited order: after the changes the ledger represents no more than was executed, and no less than before.

    Less only where it was too much before. Call it under ``gates.lock_account``. Changes that would break it are postponed,
    and what is left is counted again.
    """
    cited = cited_orders(plan)
    if not cited:
        return
    reading = read_representation(connection, plan.account_id, evidence_frame(plan, rows))
    orders = list(reading.orders["order_id"])
    before, _ = reading.of()
    while True:
        after, unknown = _after(reading, judgement)
        judgement.expected = dict(zip(orders, after, strict=True))
        refused: dict[str, Postponed] = {}
        for index, order_id in enumerate(orders):
            executed = cited[order_id]
            about = [found for found in judgement.chosen.values() if about_order(found.change) == order_id]
            if unknown[index] or after[index] > executed:
                refused |= {
                    found.change.order_id: Postponed.EVIDENCE_ALREADY_CONSUMED for found in about if found.grows
                }
            if after[index] < before[index] <= executed:
                refused |= {
                    found.change.order_id: Postponed.STILL_NEEDED
                    for found in about
                    if found.change.handler is Handler.SUPERSEDE
                }
        if not refused:
            return
        for order_id, reason in refused.items():
            judgement.postpone([order_id], reason)


def cited_orders(plan: CorrectionPlan) -> dict[str, int]:
    """Executed quantity of the orders that the changes are about, in units of 1e-9: cited, or named by a cause."""
    out = dict(plan.executed_e9)
    for change in plan.changes:
        said = parse_decimal(change.cause.get("executed"))
        if change.handler is Handler.SUPERSEDE and said is not None and about_order(change):
            out.setdefault(about_order(change), to_e9(said))
    return out


def evidence_frame(plan: CorrectionPlan, rows: Mapping[str, Row]) -> pd.DataFrame:
    """The cited orders with the columns that ``gates.read_representation`` needs, sorted by id."""
    known: dict[str, tuple[str, str, int]] = {}
    clients = client_ids(plan)
    for change in plan.changes:
        spelled: Mapping[str, object] = change.values if change.inserts else rows.get(change.order_id, {})
        at = parse_instant(change.cause.get("filled_at") or change.values.get("filled_at"))
        symbol, side = text_of(spelled.get("symbol")), normalise_side(spelled.get("side"))
        known.setdefault(about_order(change), (symbol, side, NO_TIME if at is None else at))
    orders = sorted(cited_orders(plan))
    facts = [known.get(order_id, ("", "", NO_TIME)) for order_id in orders]
    return pd.DataFrame(
        {
            "order_id": pd.Series(orders, dtype=object),
            "client_order_id": pd.Series([clients.get(order_id, "") for order_id in orders], dtype=object),
            "symbol": pd.Series([symbol for symbol, _, _ in facts], dtype=object),
            "side": pd.Series([side for _, side, _ in facts], dtype=object),
            "executed_at_ms": pd.Series([at for _, _, at in facts], dtype="int64"),
        }
    )


def client_ids(plan: CorrectionPlan) -> dict[str, str]:
    """Client order ids of the orders that the changes are about, as far as they have one."""
    out = {order_id: client for order_id, client in plan.client_order_ids.items() if client}
    for change in plan.changes:
        if client := text_of(change.cause.get("client_order_id")):
            out.setdefault(about_order(change), client)
    return out


def names_its_order(found: Candidate, plan: CorrectionPlan) -> bool:
    """Whether the row carries an id of the order that it represents, so that anybody can tell which one."""
    order_id = found.change.exchange_order_id
    own = {text_of(found.record.get("order_id")), text_of(found.record.get("client_order_id"))} - {""}
    return bool(own & ({order_id, client_ids(plan).get(order_id, "")} - {""}))


def _candidate(
    plan: CorrectionPlan, change: OrderChange, table: Table, images: Mapping[str, str], rows: Mapping[str, Row]
) -> Candidate | Postponed:
    row = rows.get(change.order_id)
    values: Mapping[str, str | None]
    if change.expected is None:
        if any(_in_the_way(change, plan, name, rows) for name in _names(change, plan)):
            return Postponed.ALREADY_EXISTS
        values = inserted_values(change, table.columns)
        record: Mapping[str, object] = values
        before: int | None = 0
    else:
        if row is None:
            return Postponed.ROW_MISSING
        if any(row[name] != change.expected.get(name) for name in COMPARED):
            return Postponed.ROW_CHANGED
        values = updated_values(row, change, table.columns)
        if not values:
            return Postponed.UNSUPPORTED_COLUMN
        record = {**row, **values}
        before = executed_units(row)
    if table.statuses and values.get("status") is not None and values["status"] not in table.statuses:
        return Postponed.UNSUPPORTED_STATUS
    after = executed_units(record)
    if change.handler is Handler.SUB_TAG:
        return Candidate(change, values, images.get(change.order_id), record, before or 0, before or 0)
    if after is None:
        return Postponed.CONFLICTING_QUANTITIES
    found = Candidate(change, values, images.get(change.order_id), record, before or 0, after)
    _check_quantity(found)
    return found


def _check_quantity(found: Candidate) -> None:
    """The last look that does not trust the plan: what is written is cited, and nothing that was executed is taken away."""
    change = found.change
    if change.exchange_order_id and change.represents_e9 != found.executed_after_e9:
        raise ValueError(
            f"{change.order_id} will say {found.executed_after_e9} executed, the change says {change.represents_e9} (1e-9)"
        )
    if found.grows and not change.exchange_order_id and change.handler not in _UNCITED:
        raise ValueError(f"{change.order_id} writes executed quantity and cites no order")
    if found.executed_after_e9 < found.executed_before_e9 - EPSILON_E9 and change.handler is not Handler.SUPERSEDE:
        raise ValueError(f"{change.order_id} would lose executed quantity by {change.handler.value}")


def _in_the_way(change: OrderChange, plan: CorrectionPlan, name: str, rows: Mapping[str, Row]) -> bool:
    """Whether a row keyed by this id of the order keeps a new row from being written."""
    row = rows.get(name)
    if row is None:
        return False
    if name == change.order_id:
        return True
    changed = {other.order_id for other in plan.changes}
    return name not in changed and normalise_status(row["status"]) not in FINAL_UNFILLED_STATUSES


def _judge_trades(judgement: Judgement, states: Mapping[str, tuple[TradeState, pd.DataFrame]]) -> None:
    """Rows without an execution behind them: they must still fit what the trade is, and what the plan makes of it."""
    closing: dict[str, list[Candidate]] = {}
    opening: dict[str, list[Candidate]] = {}
    exited: dict[str, int] = {}
    for found in judgement.chosen.values():
        change = found.change
        if change.handler is Handler.SYNTHETIC_EXIT:
            closing.setdefault(change.trade_id, []).append(found)
        elif change.handler is Handler.SUPERSEDE and change.order_id.startswith(SYNTHETIC_PREFIX):
            opening.setdefault(change.trade_id, []).append(found)
        else:
            state, _ = states.get(change.trade_id, (NOTHING, None))
            more = found.executed_after_e9 - found.executed_before_e9
            exited[change.trade_id] = exited.get(change.trade_id, 0) + (more if _exits(found, state) else -more)
    for trade_id, candidates in closing.items():
        state, rows = states.get(trade_id, (NOTHING, None))
        wanted = sum(found.executed_after_e9 for found in candidates)
        ids = [found.change.order_id for found in candidates]
        if rows is not None and not rows["status"].isin(["filled", *FINAL_UNFILLED_STATUSES]).all():
            judgement.postpone(ids, Postponed.PENDING_ORDER_BLOCKER)
        elif not state.understood or abs(wanted - (state.entry_e9 - state.exit_e9)) > EPSILON_E9:
            judgement.postpone(ids, Postponed.TRADE_CHANGED)
    for trade_id, candidates in opening.items():
        state, _ = states.get(trade_id, (NOTHING, None))
        too_much = state.exit_e9 + exited.get(trade_id, 0) - state.entry_e9
        for found in candidates:
            if too_much <= EPSILON_E9:
                judgement.postpone([found.change.order_id], Postponed.TRADE_CHANGED)
            too_much -= found.executed_before_e9


def _exits(found: Candidate, state: TradeState) -> bool:
    action = normalise_action(found.record.get("action"))
    return action == EXIT or (action != ENTRY and normalise_side(found.record.get("side")) != state.entry_side)


def _after(reading: Representation, judgement: Judgement) -> tuple[list[int], list[bool]]:
    """What each order will be represented by: the rows that stay as they are, and the changed ones as they will be."""
    changed = {key: found for key, found in judgement.chosen.items() if found.change.handler is not Handler.SUB_TAG}
    used, unknown = reading.of(without=changed)
    promised: dict[str, int] = {}
    for found in changed.values():
        order_id = found.change.exchange_order_id
        promised[order_id] = promised.get(order_id, 0) + found.change.represents_e9
    after = [
        units + promised.get(order_id, 0) for order_id, units in zip(reading.orders["order_id"], used, strict=True)
    ]
    return after, unknown


def about_order(change: OrderChange) -> str:
    """The exchange order that the change is about."""
    return change.exchange_order_id or text_of(change.cause.get("exchange_order_id"))


def _names(change: OrderChange, plan: CorrectionPlan) -> set[str]:
    """The ids under which the ledger may hold the order of a new row."""
    order_id = about_order(change)
    names: tuple[Any, ...] = (
        change.order_id,
        order_id,
        client_ids(plan).get(order_id, ""),
        change.values.get("client_order_id"),
    )
    return {name for name in map(text_of, names) if name}
