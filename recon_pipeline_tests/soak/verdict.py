"""The end: does the ledger equal the truth wherever evidence exists, and is every remaining difference named with its cause?"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from recon_pipeline_tests.soak.cast import HOUR_MS
from recon_pipeline_tests.soak.checker import book_problems, is_evident
from recon_pipeline_tests.soak.driver import World
from recon_pipeline_tests.soak.rows import BACKFILL, COUNTING, SYNTHETIC, RowReader, executed_of
from recon_pipeline_tests.soak.truth import ZERO, Fact, Trade, TradeKey

OVER = frozenset({"canceled", "expired", "rejected", "replaced"})
VOLATILE = ("id", "created_at", "updated_at")


@dataclass(frozen=True)
class Name:
    """A difference as the pipeline names it."""

    profile_id: str
    trade_id: str
    order_id: str
    reason: str


@dataclass(frozen=True)
class Difference:
    """Something that ledger and truth say differently at the end."""

    profile_id: str
    trade_id: str
    order_id: str
    what: str
    names: tuple[str, ...]
    """what the pipeline calls it; empty where it does not name it"""


@dataclass
class Verdict:
    """What the end looks like."""

    orders: int = 0
    trades: int = 0
    problems: list[str] = field(default_factory=list)
    """differences although the evidence exists, and differences that nobody names"""
    named: list[Difference] = field(default_factory=list)
    digest: str = ""
    picture: dict[str, list[str]] = field(default_factory=dict)


def judge_end(world: World, names: list[Name], ever: Iterable[Name] = ()) -> Verdict:
    """Compare the whole ledger with the truth. ``names`` are the last cycle's, ``ever`` those of any."""
    names = [*names, *_named_by_synthetic_exits(world)]
    verdict = Verdict()
    reader = RowReader(world.truth)
    rows: dict[TradeKey, list[dict[str, Any]]] = defaultdict(list)
    represented: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for row in world.ledger.rows("SELECT * FROM public.orders ORDER BY order_id"):
        rows[row["profile_id"], row["trade_id"]].append(row)
        fact = reader.order(row)
        if fact is not None:
            represented[fact.order_id] += executed_of(row)
        verdict.problems += _row_problems(row, fact, names)
    for fact in world.truth.facts():
        verdict.orders += 1
        if represented[fact.order_id] != fact.executed:
            what = f"{fact.intent.action}: {represented[fact.order_id]} in the ledger, {fact.executed} executed"
            gone = (fact.executed_ms or 0) < world.now_ms - world.plan.lookback_hours * HOUR_MS
            told = [*names, *ever] if gone else names
            _difference(verdict, _difference_of(fact, what, told), evident=is_evident(world, fact))
    for trade in world.truth.trades.values():
        verdict.trades += 1
        _judge_trade(verdict, world, trade, rows.get(trade.key, []), names)
    verdict.picture = picture(world)
    verdict.digest = hashlib.sha256(json.dumps(verdict.picture).encode()).hexdigest()
    return verdict


def _named_by_synthetic_exits(world: World) -> list[Name]:
    """A synthetic exit says in its cause what it stands for."""
    told = world.ledger.rows(
        "SELECT profile_id, after ->> 'trade_id' AS trade_id, cause FROM recon.corrections "
        "WHERE table_name = 'orders' AND before IS NULL AND after ->> 'order_id' LIKE 'PARITY-%%' ORDER BY id"
    )
    return [
        Name(
            row["profile_id"], row["trade_id"], "", f"synthetic_exit:{row['cause'].get('root_cause') or 'unexplained'}"
        )
        for row in told
    ]


def _row_problems(row: dict[str, Any], fact: Fact | None, names: list[Name]) -> list[str]:
    """A row must not wait for an order that is over, nor count for one that never was."""
    place = f"{row['profile_id']}/{row['trade_id']}/{row['order_id']}"
    if fact is None:
        stand_in = str(row["order_id"]).startswith((BACKFILL, SYNTHETIC))
        if row["status"] in COUNTING and not stand_in:
            return [f"{place}: counts {executed_of(row)} for an order that never was"]
        if row["status"] not in {*OVER, *COUNTING} and not _names(names, row["profile_id"], "", {row["order_id"]}):
            return [f"{place}: still {row['status']} for an order that never was, and not named"]
        return []
    waits = row["status"] not in {*OVER, "filled"}
    if waits != fact.is_open and executed_of(row) == fact.executed and row["status"] not in OVER:
        return [f"{place}: {row['status']}, but the order is {fact.status}"]
    return []


def _names(names: list[Name], profile_id: str, trade_id: str, order_ids: set[str]) -> tuple[str, ...]:
    found = {
        name.reason
        for name in names
        if name.profile_id == profile_id
        and (name.order_id in order_ids if name.order_id else bool(trade_id) and name.trade_id == trade_id)
    }
    return tuple(sorted(found))


def _difference_of(fact: Fact, what: str, names: list[Name]) -> Difference:
    profile_id, trade_id = fact.intent.trade.key
    found = _names(names, profile_id, trade_id, {fact.order_id, fact.client_order_id})
    return Difference(profile_id, trade_id, fact.order_id, what, found)


def _difference(verdict: Verdict, found: Difference, *, evident: bool) -> None:
    place = f"{found.profile_id}/{found.trade_id}/{found.order_id}: {found.what}"
    if evident:
        verdict.problems.append(f"{place}, although the exchange says whose it is; named {found.names or 'nowhere'}")
    elif not found.names:
        verdict.problems.append(f"{place}, and nothing names it")
    else:
        verdict.named.append(found)


def _judge_trade(verdict: Verdict, world: World, trade: Trade, rows: list[dict[str, Any]], names: list[Name]) -> None:
    """What the ledger leaves open of a trade against what is truly open of it."""
    signed = {"ENTRY": 1, "EXIT": -1}
    left = sum((signed[str(row["action"]).upper()] * executed_of(row) for row in rows), ZERO)
    own = world.truth.executed(trade, "ENTRY") - world.truth.executed(trade, "EXIT")
    if trade.by_hand:
        true, evident = ZERO, False
    elif trade.finished and "/" in trade.symbol:
        true, evident = ZERO, False  # the fee was taken in coins: what is left of the entry is not there any more
    else:
        true, evident = own, all(is_evident(world, fact) for fact in world.truth.of_trade(trade) if fact.executed)
    if left != true:
        what = f"{left} open in the ledger, {true} is true{' (closed by hand)' if trade.by_hand else ''}"
        order_ids = {fact.order_id for fact in world.truth.of_trade(trade)}
        found = _names(names, *trade.key, order_ids)
        _difference(verdict, Difference(*trade.key, "", what, found), evident=evident)
    verdict.problems += [f"{'/'.join(trade.key)}: {problem}" for problem in book_problems(world, trade.key, rows)]


def picture(world: World) -> dict[str, list[str]]:
    """The bots' tables, without what depends on when and by whom they were written: the same seed, the same picture."""
    shown: dict[str, list[str]] = {}
    for name in ("orders", "positions", "trade_history", "capital_ledger"):
        told = world.ledger.rows(
            f"SELECT (to_jsonb(t) - %s::text[])::text AS row FROM public.{name} AS t ORDER BY 1", list(VOLATILE)
        )
        shown[name] = [row["row"] for row in told]
    return shown
