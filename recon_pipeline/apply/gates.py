"""What the applying transaction checks, under locks that hold until its commit: everything that the plan was built on.

Each function raises :class:`Refused` with a reason; the order in which they are called is the order of ``applying``.
The same domain functions as in planning read the rows, so that the two can't disagree about what a row says.
What does not belong here: any write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from recon_pipeline.apply.outcomes import EXPLANATIONS, RefusedReason
from recon_pipeline.apply.records import tuples
from recon_pipeline.domain.attribution import KnownTrades
from recon_pipeline.domain.evidence import represented_quantities
from recon_pipeline.domain.frames import LIFECYCLE_ROWS
from recon_pipeline.domain.pending import find_pending
from recon_pipeline.domain.plan import DUST_PREFIX, ProfilePlan
from recon_pipeline.domain.quantities import EPSILON_E9, decimal_text, decimal_text_e9
from recon_pipeline.domain.readings import consumption_frame, lifecycle_rows_frame
from recon_pipeline.domain.slices import build_slices, deduplicate_rows
from recon_pipeline.domain.symbols import symbol_token
from recon_pipeline.domain.terms import FILLED_STATUSES, FINAL_UNFILLED_STATUSES
from recon_pipeline.ledger.database import Connection, Row
from recon_pipeline.ledger.leases import Lease, check_lease
from recon_pipeline.ledger.reads import ALL_TRADING, AUDIT_COLUMNS
from recon_pipeline.ledger.statements import statement

OVER_STATUSES: Final = sorted({*FILLED_STATUSES, *FINAL_UNFILLED_STATUSES, "cancelled"})


class Refused(Exception):  # noqa: N818
    """The transaction must not go on; the reason and what an operator should know."""

    def __init__(self, reason: RefusedReason, detail: str = "") -> None:
        self.reason = reason
        self.detail = f"{EXPLANATIONS[reason]} ({detail})" if detail else EXPLANATIONS[reason]
        super().__init__(f"{reason.value}: {self.detail}")


@dataclass(frozen=True)
class Existing:
    """Which of the proposed rows the ledger has already."""

    same: frozenset[str] = frozenset()
    """live, with the quantity and the price of the proposal"""
    canceled: dict[str, str] = field(default_factory=dict)
    """canceled by a rollback and asked for again: id to row image as text"""


def hold_lease(connection: Connection, lease: Lease, profile_id: str) -> None:
    """The lease is in force and stays so until the commit."""
    if lease.profile_id != profile_id:
        raise ValueError(f"the lease is of profile {lease.profile_id}, the work is of profile {profile_id}")
    if not check_lease(connection, lease):
        raise Refused(RefusedReason.LEASE_LOST, f"{lease.owner}, token {lease.token}")


def hold_pause(connection: Connection, profile_id: str) -> None:
    """Trading is paused, for all or for this profile, and nobody resumes it before the commit."""
    rows = connection.execute(statement("lock_trading_control"), {"profile_id": profile_id}).fetchall()
    if not any(str(row["state"]).strip().upper() == "PAUSED" for row in rows):
        said = "; ".join(f"{row['scope']} is {row['state']}" for row in rows)
        raise Refused(RefusedReason.PAUSE_REQUIRED, said or f"no row for {ALL_TRADING} or {profile_id}")


def need_audit_table(connection: Connection) -> None:
    """The audit table is there with its columns and takes rows."""
    row = connection.execute(statement("select_audit_available"), {"columns": list(AUDIT_COLUMNS)}).fetchone()
    if row is None or not row["available"]:
        raise Refused(RefusedReason.AUDIT_TABLE_MISSING)


def lock_account(connection: Connection, account_id: str) -> None:
    """Take turns with everybody who consumes executions of the account."""
    connection.execute(statement("lock_account_evidence"), {"account_id": account_id})


def existing_rows(connection: Connection, plan: ProfilePlan, order_ids: Sequence[str]) -> Existing:
    """Judge which of the ids exist, and hold those rows: the same row, a canceled one to re-apply, or a refusal."""
    asked = {"order_ids": sorted(order_ids)}
    images = {row["order_id"]: row["image"] for row in connection.execute(statement("lock_order_images"), asked)}
    if not images:
        return Existing()
    frame = lifecycle_rows_frame(connection.execute(statement("select_orders_by_id"), asked).fetchall())
    proposed = {row.order_id: row for row in tuples(plan.proposals)}
    same: set[str] = set()
    canceled: dict[str, str] = {}
    for found in tuples(frame):
        wanted = proposed[found.order_id]
        # Being canceled excuses nothing else: quantity, price and owner must still be those of the proposal.
        agrees = (
            not found.defect
            and int(found.qty_e9) == int(wanted.qty_e9)
            and found.price == wanted.price
            and found.profile_id == wanted.profile_id
            and found.trade_id == wanted.trade_id
            and found.side == wanted.side
        )
        if not agrees:
            raise Refused(RefusedReason.ID_COLLISION, _difference(found, wanted))
        if found.status in FILLED_STATUSES:
            same.add(found.order_id)
        elif found.status == "canceled" and wanted.reapply:
            canceled[found.order_id] = images[found.order_id]
        elif found.status == "canceled":
            raise Refused(RefusedReason.PREVIOUSLY_REVERTED, found.order_id)
        else:
            raise Refused(RefusedReason.ID_COLLISION, f"{found.order_id} has status {found.status!r}")
    return Existing(frozenset(same), canceled)


def written_exactly(connection: Connection, plan: ProfilePlan, order_ids: Sequence[str]) -> None:
    """The rows read back as they were planned: no trigger changed them and no column rounded them."""
    try:
        found = existing_rows(connection, plan, order_ids)
    except Refused as refusal:
        raise Refused(RefusedReason.NOT_WRITTEN_EXACTLY, refusal.detail) from refusal
    if missing := set(order_ids) - found.same:
        raise Refused(RefusedReason.NOT_WRITTEN_EXACTLY, f"{', '.join(sorted(missing))} can't be read back")


def _difference(found: Any, wanted: Any) -> str:
    there = found.defect or decimal_text_e9(int(found.qty_e9))
    price = "?" if found.price is None else decimal_text(found.price)
    return (
        f"{found.order_id} is {there} at {price} of trade {found.trade_id}, the plan says"
        f" {decimal_text_e9(int(wanted.qty_e9))} at {decimal_text(wanted.price)} of trade {wanted.trade_id}"
    )


def trades_unchanged(connection: Connection, plan: ProfilePlan) -> pd.DataFrame:
    """No order of the trades is pending, and their rows still sum to what the plan was made from.

    Rows that the plan itself proposes do not count: they are there where it was applied before. The answer is the
    slices of the trades without those rows.
    """
    trades = sorted(set(plan.proposals["trade_id"]))
    locked = {"profile_id": plan.profile_id, "trade_ids": trades}
    connection.execute(statement("lock_trade_orders"), locked)
    records = connection.execute(
        statement("select_rows_of_trades"), {**locked, "over_statuses": OVER_STATUSES}
    ).fetchall()
    own = set(plan.proposals["order_id"])
    rows = deduplicate_rows(lifecycle_rows_frame(row for row in records if row["order_id"] not in own))
    _no_pending_order(connection, plan, rows)
    now = build_slices(rows[rows["trade_id"].isin(trades)].reset_index(drop=True), crypto_tokens=frozenset())
    seen = {row.trade_id: row for row in tuples(plan.slices)}
    found = {row.trade_id: row for row in tuples(now)}
    for trade_id in trades:
        before, after = seen[trade_id], found.get(trade_id)
        if after is None:
            raise Refused(RefusedReason.LEDGER_CHANGED, f"trade {trade_id} has no filled rows any more")
        for name, spelled in (("entry_side", str), ("symbol_token", str), ("entry_e9", _e9), ("exit_e9", _e9)):
            was, reads = getattr(before, name), getattr(after, name)
            if was != reads:
                label = name.removesuffix("_e9")
                raise Refused(
                    RefusedReason.LEDGER_CHANGED, f"trade {trade_id}: {label} was {spelled(was)}, is {spelled(reads)}"
                )
        if after.defect:
            raise Refused(RefusedReason.LEDGER_CHANGED, f"trade {trade_id}: {after.defect}")
    _no_over_exit(plan, found)
    return now


def _e9(units: Any) -> str:
    return decimal_text_e9(int(units))


def _no_pending_order(connection: Connection, plan: ProfilePlan, rows: pd.DataFrame) -> None:
    blocking = rows[~rows["status"].isin([*FILLED_STATUSES, *FINAL_UNFILLED_STATUSES])]
    if blocking.empty:
        return
    known_trades: list[str] = list(plan.slices["trade_id"])
    if (blocking["trade_id"] == "").any():
        named = connection.execute(statement("select_trade_ids_of_profile"), {"profile_id": plan.profile_id})
        known_trades = [row["trade_id"] for row in named]
    profiles = connection.execute(statement("select_account_siblings"), {"profile_ids": [plan.profile_id]}).fetchall()
    names = {plan.profile_id, *(row["profile_id"] for row in profiles)}
    known = KnownTrades.of(names, [(plan.profile_id, trade) for trade in known_trades])
    pending = find_pending(blocking, LIFECYCLE_ROWS.empty(), known)
    for row in tuples(plan.proposals):
        if pending.blocks(row.profile_id, row.trade_id, row.symbol_token):
            ids = ", ".join(sorted(pending.order_ids)[:5])
            raise Refused(RefusedReason.PENDING_ORDER_BLOCKER, f"trade {row.trade_id}; pending: {ids}")
    cited = set(plan.proposals["exchange_order_id"]) | set(plan.proposals["exchange_client_order_id"])
    blocked = sorted((cited - {""}) & pending.order_ids)
    if blocked:
        raise Refused(RefusedReason.PENDING_ORDER_BLOCKER, f"the ledger holds the cited order as pending: {blocked[0]}")


def _no_over_exit(plan: ProfilePlan, found: dict[str, Any]) -> None:
    """A last look that does not trust the plan: what it proposes fits into what is open."""
    totals: dict[str, int] = {}
    for row in tuples(plan.proposals):
        totals[row.trade_id] = totals.get(row.trade_id, 0) + int(row.qty_e9)
    for trade_id, total in sorted(totals.items()):
        opened = int(found[trade_id].open_e9)
        if total > opened + EPSILON_E9:
            raise ValueError(
                f"batch {plan.batch_id} closes {decimal_text_e9(total)} of trade {trade_id}, of which"
                f" {decimal_text_e9(opened)} is open"
            )


def evidence_is_free(connection: Connection, plan: ProfilePlan) -> None:
    """Per cited order: what the ledger represents without this plan's rows, plus the plan, is within what was executed.

    Call it under :func:`lock_account`.
    """
    cited = plan.proposals[~is_dust(plan.proposals)]
    if cited.empty:
        return
    wanted: dict[str, int] = {}
    for order_id, units in zip(cited["exchange_order_id"], cited["qty_e9"], strict=True):
        wanted[order_id] = wanted.get(order_id, 0) + int(units)
    evidence = plan.evidence[plan.evidence["order_id"].isin(list(wanted))].reset_index(drop=True)
    missing = set(wanted) - set(evidence["order_id"])
    if missing:
        raise ValueError(f"batch {plan.batch_id} cites orders outside of its evidence: {', '.join(sorted(missing))}")
    represented, unknown = represented_now(connection, plan.account_id, evidence, without=set(cited["order_id"]))
    for index, row in enumerate(tuples(evidence)):
        used, executed = int(represented[index]), int(row.executed_e9)
        if unknown[index] or used + wanted[row.order_id] > executed:
            raise Refused(
                RefusedReason.EVIDENCE_ALREADY_CONSUMED,
                f"order {row.order_id}: executed {decimal_text_e9(executed)}, represented {decimal_text_e9(used)},"
                f" wanted {decimal_text_e9(wanted[row.order_id])}",
            )


@dataclass(frozen=True)
class Representation:
    """What stands in the ledger about some exchange orders: read once, counted with and without some of its rows."""

    orders: pd.DataFrame
    rows: list[Row]
    consumed: list[Row]

    def of(self, *, without: Iterable[str] = ()) -> tuple[list[int], list[bool]]:
        """What the ledger represents of each order, and where that can't be told; ``without`` does not count."""
        left_out = set(without)
        rows = deduplicate_rows(lifecycle_rows_frame(row for row in self.rows if row["order_id"] not in left_out))
        live = consumption_frame(row for row in self.consumed if row["backfill_order_id"] not in left_out)
        represented, unknown = represented_quantities(self.orders, rows, live)
        return [int(units) for units in represented], [bool(flag) for flag in unknown]


def read_representation(connection: Connection, account_id: str, evidence: pd.DataFrame) -> Representation:
    """The account's rows and consumption about the orders of EVIDENCE."""
    orders = evidence.assign(symbol_token=[symbol_token(symbol) for symbol in evidence["symbol"]])
    ids = sorted({*orders["order_id"], *orders["client_order_id"]} - {""})
    rows = connection.execute(
        statement("select_rows_of_exchange_orders"), {"account_id": account_id, "exchange_ids": ids}
    ).fetchall()
    consumed = connection.execute(
        statement("select_consumption_of_exchange_orders"),
        {"account_id": account_id, "exchange_order_ids": sorted(orders["order_id"])},
    ).fetchall()
    return Representation(orders, rows, consumed)


def represented_now(
    connection: Connection, account_id: str, evidence: pd.DataFrame, *, without: Iterable[str] = ()
) -> tuple[list[int], list[bool]]:
    """What the ledger represents of each order of EVIDENCE, and where that can't be told; ``without`` does not count."""
    return read_representation(connection, account_id, evidence).of(without=without)


def is_dust(proposals: pd.DataFrame) -> pd.Series[bool]:
    """Proposals that cite no exchange order."""
    return proposals["exchange_order_id"].map(lambda order_id: order_id.startswith(DUST_PREFIX)).astype(bool)
