"""What the stored events of an account's stream make of the ledger, and what is asked of the exchange when some may be missing.

An event is handled by the rules of the order status sync, forward only: through its plan, the gates of corrections and the lease
of the profile, taken for a moment. That it was handled is noted in the transaction that writes; what dies in between is handled
again, and then finds the ledger in line. What belongs here: reading, planning, writing and settling the waiting events of an
account. What does not: hearing and storing them (``account_stream``), and any rule (``domain.order_event_verdicts``).
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from recon_pipeline.apply import CorrectionResult, apply_corrections
from recon_pipeline.domain.cycle_frames import CycleInputs
from recon_pipeline.domain.frames import NO_TIME, rows_of
from recon_pipeline.domain.order_answers import CheckOutcome
from recon_pipeline.domain.order_event_verdicts import (
    FRESH_MS,
    ToldOrder,
    Verdict,
    WaitingEvent,
    needs_cycle,
    told_orders,
    verdict_before_planning,
    verdict_of_rows,
    wait,
)
from recon_pipeline.domain.order_events import CycleReason, EventOutcome
from recon_pipeline.domain.order_readings import ledger_orders_frame, order_facts_frame
from recon_pipeline.domain.order_status import OrderStatusPlan, plan_order_status
from recon_pipeline.domain.ownership import own_orders
from recon_pipeline.domain.stand_ins import STAND_IN_PREFIXES
from recon_pipeline.exchange.gateway import Absent, Found, WantedOrder
from recon_pipeline.ledger.database import Connection, redact
from recon_pipeline.ledger.order_events import Settlement, disputed_orders, settle_events, waiting_events
from recon_pipeline.order_status.brief_lease import brief_lease
from recon_pipeline.order_status.ports import Record
from recon_pipeline.order_status.reading import profile_inputs, profiles_frame
from recon_pipeline.order_status.stream_ports import AWAY, StreamPorts, StreamRules
from recon_pipeline.order_status.syncing import SyncScope, sync_order_status

_LOG = logging.getLogger(__name__)
FAULT_POINTS: Final = ("events_read", "planned", "written", "settled")
"""Where ``at`` is called beside the fault points of ``apply.corrections``: what a kill test kills at."""
_AT_ONCE: Final = 2_000
_IN_ONE_TRANSACTION: Final = 100  # orders: a lease taken for a moment is given back after a moment
_PATIENCE_SECONDS: Final = 0.5
_LONGEST_ERROR: Final = 300


@dataclass(frozen=True)
class _Order:
    """An order with waiting events, and the rows of one profile that name it."""

    told: ToldOrder
    keys: tuple[str, ...]
    trades: tuple[str, ...]


class StreamWriter:
    """Handles the stored events of one account. Used by one thread, but for ``catch_up``."""

    def __init__(self, account_id: str, *, ports: StreamPorts, rules: StreamRules) -> None:
        self.account_id = account_id
        self._ports = ports
        self._rules = rules
        self._asked: dict[str, int] = {}
        """when the exchange was asked again about an order"""

    def settle(self, connection: Connection) -> int:
        """Handle the waiting events, as ``recon_reader``; return how many still wait.

        What fails for one order is its own: it then needs a cycle, and the others are handled.
        """
        rows = waiting_events(connection, self.account_id, limit=_AT_ONCE)
        if not rows:
            self._asked.clear()
            return 0
        waiting = [_event(row) for row in rows]
        disputed = disputed_orders(connection, self.account_id, {event.order_id for event in waiting})
        told = told_orders(waiting, disputed=disputed)
        self._rules.at("events_read")
        try:
            return self._settle(connection, told)
        except AWAY:
            raise
        except Exception:  # noqa: BLE001  the border between orders: each is tried alone
            _LOG.exception("events of account %s could not be handled together", self.account_id)
        return sum(self._settle_alone(connection, order) for order in told)

    def catch_up(self) -> bool:
        """Ask the exchange about every order of the account that may still execute; return whether all of it is settled now."""
        profiles = sorted(self._siblings())
        if not profiles:
            return True
        rules = self._rules
        result = sync_order_status(
            profiles,
            ports=self._ports,
            policy=rules.policy,
            run_id=f"{rules.run_id} {rules.new_id()}",
            now=rules.now,
            new_id=rules.new_id,
            dry_run=rules.policy.dry_run,
            managed_symbols=rules.managed_symbols,
            scope=SyncScope.LIVE,
        )
        failed = any(profile.failure is not None for profile in result.profiles.values())
        refused = any(account.error for account in result.accounts.values())
        left = any(result.counts.get(name, 0) for name in ("failed", "postponed"))
        return not (failed or refused or left)

    # -- all orders at once

    def _siblings(self) -> dict[str, Record]:
        rows = self._ports.ledger.profiles()
        return {str(row["profile_id"]): row for row in rows if str(row["account_id"]) == self.account_id}

    def _settle_alone(self, connection: Connection, told: ToldOrder) -> int:
        try:
            return self._settle(connection, [told])
        except AWAY:
            raise
        except Exception as error:  # noqa: BLE001  the border between orders: a cycle decides this one
            _LOG.exception("the events of order %s could not be handled", told.order_id)
            said = redact(f"{type(error).__name__}: {error}", self._ports.database_url)[:_LONGEST_ERROR]
            return self._note(connection, [(told, needs_cycle(CycleReason.FAILED, said))])

    def _settle(self, connection: Connection, told: Sequence[ToldOrder]) -> int:
        siblings = self._siblings()
        ids = {key for order in told for key in (order.order_id, str(order.record.get("client_order_id") or "")) if key}
        rows = self._ports.ledger.rows_naming_orders(ids) if ids else []
        owners = self._owners(told, rows, siblings)
        verdicts: list[tuple[ToldOrder, Verdict]] = []
        by_profile: dict[str, list[_Order]] = {}
        for order in told:
            own, elsewhere = _naming(order, rows, siblings)
            verdict = verdict_before_planning(order, owners.get(order.order_id), own, elsewhere=elsewhere)
            if verdict is not None:
                verdicts.append((order, verdict))
                continue
            keys = tuple(str(row["order_id"]) for row in own)
            trades = tuple(str(row["trade_id"] or "") for row in own)
            by_profile.setdefault(str(own[0]["profile_id"]), []).append(_Order(order, keys, trades))
        left = self._note(connection, verdicts)
        for profile_id, orders in sorted(by_profile.items()):
            for at in range(0, len(orders), _IN_ONE_TRANSACTION):
                left += self._settle_profile(connection, profile_id, siblings, orders[at : at + _IN_ONE_TRANSACTION])
        return left

    def _owners(
        self, told: Sequence[ToldOrder], rows: Sequence[Record], siblings: Mapping[str, Record]
    ) -> dict[str, Any]:
        """Rows of OWNERSHIP by order: whose each is, as far as its keys and the rows that name it say."""
        facts = order_facts_frame([order.record for order in told if order.order_id], account_id=self.account_id)
        inputs = CycleInputs(
            profiles=profiles_frame(siblings, selected=(), managed_symbols=self._rules.managed_symbols),
            ledger_orders=ledger_orders_frame([row for row in rows if row["profile_id"] in siblings]),
            order_facts=facts,
        )
        return {owner.order_id: owner for owner in rows_of(own_orders(inputs))}

    def _note(self, connection: Connection, verdicts: Sequence[tuple[ToldOrder, Verdict]]) -> int:
        """Settle events; return how many still wait."""
        now = self._rules.now()
        final, left = _settlements(verdicts, _ms(now))
        if final:
            settle_events(connection, final, handled_at=now)
            self._rules.at("settled")
        return left

    # -- the orders of one profile

    def _settle_profile(
        self, connection: Connection, profile_id: str, siblings: Mapping[str, Record], orders: Sequence[_Order]
    ) -> int:
        plan = self._plan(connection, profile_id, siblings, orders)
        now_ms = _ms(self._rules.now())
        old = [order for order in orders if not order.told.is_fresh(now_ms) and _differs(plan, profile_id, order)]
        left = 0
        if old:
            kept, verdicts = self._ask_again(profile_id, old, now_ms)
            left = self._note(connection, verdicts)
            unaffected = [order for order in orders if order not in old]
            orders = [*unaffected, *kept]
            if not orders:
                return left
            plan = self._plan(connection, profile_id, siblings, orders)
        self._rules.at("planned")
        written, why = self._write(plan, profile_id, orders)
        verdicts = _verdicts(plan, profile_id, orders, written, why, dry_run=self._rules.policy.dry_run)
        return left + self._note(connection, verdicts)

    def _plan(
        self, connection: Connection, profile_id: str, siblings: Mapping[str, Record], orders: Sequence[_Order]
    ) -> OrderStatusPlan:
        rules = self._rules
        inputs = profile_inputs(
            connection,
            profile_id,
            siblings,
            ids={key for order in orders for key in order.keys},
            trade_ids={trade for order in orders for trade in order.trades},
            found=[order.told.record for order in orders],
            managed_symbols=rules.managed_symbols,
        )
        return plan_order_status(
            inputs,
            rules.policy,
            asked=frozenset((profile_id, key) for order in orders for key in order.keys),
            absent=frozenset(),
            unknown={},
            now_ms=_ms(rules.now()),
            ownership=own_orders(inputs),
            forward_only=True,
        )

    def _ask_again(
        self, profile_id: str, orders: Sequence[_Order], now_ms: int
    ) -> tuple[list[_Order], list[tuple[ToldOrder, Verdict]]]:
        """What the exchange says now of orders whose events are old; an order is asked about every ten seconds at most."""
        verdicts: list[tuple[ToldOrder, Verdict]] = []
        due = [order for order in orders if now_ms - self._asked.get(order.told.order_id, NO_TIME) >= FRESH_MS]
        verdicts += [
            (order.told, wait(CycleReason.NOT_IN_TIME, "the exchange was asked a moment ago", profile_id))
            for order in orders
            if order not in due
        ]
        if not due:
            return [], verdicts
        wanted = [WantedOrder(order.told.order_id, "", order.told.events[0].happened_ms) for order in due]
        found = self._ports.exchange.find_orders(self.account_id, wanted, bulk_pages=self._rules.policy.bulk_pages)
        kept = []
        for order, answer in zip(due, found.results, strict=True):
            self._asked[order.told.order_id] = now_ms
            if isinstance(answer, Found):
                kept.append(replace(order, told=replace(order.told, record=answer.raw)))
            elif isinstance(answer, Absent):
                verdicts.append((order.told, needs_cycle(CycleReason.UNKNOWN_TO_EXCHANGE, profile_id=profile_id)))
            else:
                verdicts.append((order.told, wait(CycleReason.NOT_IN_TIME, answer.error, profile_id)))
        return kept, verdicts

    def _write(
        self, plan: OrderStatusPlan, profile_id: str, orders: Sequence[_Order]
    ) -> tuple[frozenset[str], dict[str, str]]:
        """Write the plan unless it is a dry run: the keys of the rows that were written, and why others were not."""
        rules = self._rules
        if rules.policy.dry_run or not plan.changes:
            return frozenset(), {}
        correction = plan.for_profile(profile_id, f"RECON-ORDER-STREAM-{rules.new_id()}")
        now = rules.now()

        def note(connection: Connection, result: CorrectionResult) -> None:
            verdicts = _verdicts(plan, profile_id, orders, frozenset(result.applied), result.postponed, dry_run=False)
            final, _ = _settlements(
                [(told, verdict) for told, verdict in verdicts if verdict.outcome is EventOutcome.WRITTEN], _ms(now)
            )
            settle_events(connection, final, handled_at=now)

        url = self._ports.database_url
        owner = f"stream {rules.run_id} {self.account_id}"
        with brief_lease(url, profile_id, owner=owner, patience_seconds=_PATIENCE_SECONDS) as lease:
            if lease is None:
                taken = "another run works on the profile"
                return frozenset(), {change.order_id: taken for change in correction.changes}
            result = apply_corrections(
                url, correction, run_id=rules.run_id, now=now, lease=lease, also=note, at=rules.at
            )
        rules.at("written")
        why = dict(result.postponed)
        if not result.ok:
            why |= {change.order_id: f"{result.refused_reason}: {result.detail}" for change in correction.changes}
        return frozenset(result.applied), why


def _event(row: Mapping[str, Any]) -> WaitingEvent:
    happened = row["happened_ms"]
    return WaitingEvent(
        id=int(row["id"]),
        event=str(row["event"]),
        order_id=str(row["order_id"]),
        received_ms=int(row["received_ms"]),
        happened_ms=NO_TIME if happened is None else int(happened),
        raw=row["raw"] if isinstance(row["raw"], Mapping) else {},
    )


def _naming(order: ToldOrder, rows: Sequence[Record], siblings: Mapping[str, Record]) -> tuple[list[Record], bool]:
    """The rows of the account's profiles that name the order by either of its ids, and whether a stranger's does."""
    ids = {order.order_id, str(order.record.get("client_order_id") or "")} - {""}
    naming = [
        row
        for row in rows
        if (row["order_id"] in ids or row["client_order_id"] in ids)
        and not str(row["order_id"]).startswith(STAND_IN_PREFIXES)
    ]
    own = [row for row in naming if row["profile_id"] in siblings]
    return own, len(own) < len(naming)


def _differs(plan: OrderStatusPlan, profile_id: str, order: _Order) -> bool:
    found = (plan.outcomes.get((profile_id, key)) for key in order.keys)
    return any(checked is not None and checked.outcome is CheckOutcome.DIFFERS for checked in found)


def _verdicts(
    plan: OrderStatusPlan,
    profile_id: str,
    orders: Sequence[_Order],
    applied: frozenset[str],
    not_written: Mapping[str, str],
    *,
    dry_run: bool,
) -> list[tuple[ToldOrder, Verdict]]:
    return [
        (
            order.told,
            verdict_of_rows(
                {key: plan.outcomes.get((profile_id, key)) for key in order.keys},
                profile_id=profile_id,
                applied=applied,
                not_written=not_written,
                dry_run=dry_run,
            ),
        )
        for order in orders
    ]


def _settlements(verdicts: Sequence[tuple[ToldOrder, Verdict]], now_ms: int) -> tuple[list[Settlement], int]:
    """The events that are settled by verdicts, and how many others still wait."""
    final: list[Settlement] = []
    left = 0
    for told, verdict in verdicts:
        for event in told.events:
            found = verdict.of(event, now_ms)
            if found.outcome is EventOutcome.WAITING:
                left += 1
            else:
                final.append(Settlement(event.id, found.outcome, found.text, found.profile_id))
    return final, left


def _ms(instant: dt.datetime) -> int:
    return int(instant.timestamp() * 1000)
