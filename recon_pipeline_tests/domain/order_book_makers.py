"""Random ledgers and exchanges whose truth is known: what bots would have written, with what is lost, late, doubled or wrong.

What belongs here: making worlds. What does not: what must hold of their plans (``test_order_invariants``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.plan import backfill_order_id
from recon_pipeline_tests.domain.order_worlds import EARLIER, MINUTE, Raw, World, exchange_id, profile

PROFILES = (("p1", "a1"), ("p1-b", "a1"), ("p2", "a1"), ("p3", "a2"))
LIVE = ("new", "accepted", "held", "partially_filled", "pending_cancel", "done_for_day")
OVER = ("filled", "canceled", "expired", "rejected", "replaced")
TRADES_EACH = 6


@dataclass
class Made:
    """A world and what is true of it."""

    world: World
    owner: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """profile, trade and action of every exchange order"""
    orders: dict[str, Raw] = field(default_factory=dict)


def made_world(rnd: Random) -> Made:
    """Four profiles on two accounts, a few trades each, and orders of strangers."""
    made = Made(World())
    rows: list[Raw] = []
    consumption: list[Raw] = []
    numbers = iter(range(1, 10_000))
    for profile_id, account in PROFILES:
        for number in range(TRADES_EACH):
            for raw in _trade(rnd, made, (profile_id, f"t{number}"), numbers, rows, consumption):
                raw["account_id"] = account
                made.orders[raw["id"]] = raw
    for account in ("a1", "a2"):
        stranger = _order(rnd, exchange_id(next(numbers)), f"by-hand-{account}", "buy", "10")
        made.orders[stranger["id"]] = {**stranger, "account_id": account}
    members = [profile(name, account_id=account) for name, account in PROFILES]
    made.world = World(rows, list(made.orders.values()), members, consumption, absent=_absent(rnd, rows, made))
    return made


def _trade(
    rnd: Random,
    made: Made,
    trade: tuple[str, str],
    numbers: Iterator[int],
    rows: list[Raw],
    consumption: list[Raw],
) -> Iterator[Raw]:
    entry_side = rnd.choice(["buy", "sell"])
    exit_side = "sell" if entry_side == "buy" else "buy"
    for action, side, marker in (
        ("ENTRY", entry_side, "entry"),
        ("EXIT", exit_side, "exit"),
        ("EXIT", exit_side, "exit-2"),
    )[: rnd.randint(1, 3)]:
        order_id, client_id = exchange_id(next(numbers)), f"bytelyst-{trade[0]}-{trade[1]}-{marker}"
        raw = _order(rnd, order_id, client_id, side, rnd.choice(["10", "0.123456789", "3"]))
        made.owner[order_id] = (*trade, action)
        rows.extend(_recorded(rnd, raw, trade, action, consumption))
        yield raw
        if raw["status"] == "replaced":
            successor = _order(rnd, exchange_id(next(numbers)), "made-by-the-exchange-" + order_id[-4:], side, "5")
            successor["replaces"], raw["replaced_by"] = order_id, successor["id"]
            made.owner[successor["id"]] = (*trade, action)
            yield successor


def _order(rnd: Random, order_id: str, client_id: str, side: str, quantity: str) -> Raw:
    status = rnd.choice(LIVE + OVER)
    executed = {"filled": quantity, "rejected": "0", "new": "0", "accepted": "0", "held": "0"}.get(status)
    if executed is None:
        executed = (
            rnd.choice(["0", "0.1", "0.100000001", "2"]) if quantity != "0.123456789" else rnd.choice(["0", "0.1"])
        )
    if status == "partially_filled" and executed == "0":
        executed = "0.1"
    at = EARLIER + rnd.randint(0, 50) * MINUTE
    made: Raw = {"id": order_id, "client_order_id": client_id, "symbol": "BTC/USD", "side": side, "type": "limit"}
    made |= {"asset_class": "crypto", "status": status, "qty": quantity, "filled_qty": executed, "limit_price": "100"}
    made |= {"filled_avg_price": None if executed == "0" else str(rnd.randint(90, 110)), "created_at": iso_ms(EARLIER)}
    made |= {"filled_at": None if executed == "0" else iso_ms(at), "replaces": None, "replaced_by": None}
    return {**made, "subtag": None}


def _recorded(rnd: Random, raw: Raw, trade: tuple[str, str], action: str, consumption: list[Raw]) -> Iterator[Raw]:
    """The rows that the ledger has of an order: the bot's as it was once, perhaps twice, perhaps wrong, and backfills."""
    executed = raw["filled_qty"]
    base: Raw = {"profile_id": trade[0], "user_id": "u1", "trade_id": trade[1], "symbol": "BTCUSD", "side": raw["side"]}
    base |= {"action": action, "quantity": None, "filled_qty": None, "price": None, "filled_at": None, "sub_tag": None}
    base |= {"source": "BOT", "created_at": None, "updated_at": None, "qty": raw["qty"], "timestamp": EARLIER}
    known: list[Raw] = [{"status": rnd.choice(["pending_new", "new", "unknown", "accepted"])}]
    known.append({"status": rnd.choice(["canceled", "done_for_day", "error"])})
    if executed != "0":
        known.append({"status": "partially_filled", "filled_qty": executed, "price": raw["filled_avg_price"]})
        known.append({"status": "partially_filled", "filled_qty": "0.05", "price": "95"})
        known.append({"status": "filled", "qty": executed, "price": raw["filled_avg_price"]})
    else:
        known.append({"status": rnd.choice(["canceled", "expired"])})
    wrong: list[Raw] = [{"side": None}, {"action": None}, {"trade_id": None}, {"symbol": "ETHUSD"}]
    wrong += [{"side": "buy"}, {"status": "filled", "qty": "20"}, {"quantity": "7"}, {"trade_id": "t9"}]
    keys: list[Raw] = [{"order_id": raw["id"]}, {"order_id": raw["client_order_id"]}]
    keys.append({"order_id": "local-" + raw["id"][-4:], "client_order_id": raw["client_order_id"]})
    keys.append({"order_id": raw["id"], "client_order_id": raw["client_order_id"]})
    keys.append({"order_id": "lost-" + raw["id"][-4:]})
    dice = rnd.random()
    first, other = rnd.sample(keys, k=2)
    if dice > 0.1:
        slip = rnd.choice(wrong) if rnd.random() < 0.08 else {}
        yield {"client_order_id": None, **base, **first, **rnd.choice(known), **slip}
    if dice > 0.9 and other["order_id"] != first["order_id"]:
        yield {"client_order_id": None, **base, **other, **rnd.choice(known), "timestamp": EARLIER + 1, "source": "TWO"}
    if executed != "0" and rnd.random() < 0.15:
        key = backfill_order_id(trade[0], trade[1], raw["id"], str(raw["filled_at"]))
        booked: Raw = {**base, "order_id": key, "client_order_id": None, "status": "filled", "qty": executed}
        yield {**booked, "price": raw["filled_avg_price"], "timestamp": raw["filled_at"], "source": "RECON_BACKFILL"}
        if rnd.random() < 0.5:
            account = dict(PROFILES)[trade[0]]
            used: Raw = {"account_id": account, "backfill_order_id": key, "exchange_order_id": raw["id"]}
            consumption.append({**used, "qty": executed})


def _absent(rnd: Random, rows: list[Raw], made: Made) -> frozenset[tuple[str, str]]:
    """Rows of which the exchange says that it does not know them: none of theirs is an order's id."""
    ids = {key for raw in made.orders.values() for key in (raw["id"], raw["client_order_id"])}
    lost = [raw for raw in rows if not ids & {raw["order_id"], raw["client_order_id"]}]
    return frozenset((raw["profile_id"], raw["order_id"]) for raw in lost if rnd.random() < 0.7)


def shuffled(world: World, rnd: Random) -> dict[str, Any]:
    """The world's inputs in another order, some of them twice."""
    out: dict[str, Any] = {}
    for name in ("rows", "orders"):
        listed = list(getattr(world, name))
        listed += rnd.sample(listed, k=min(3, len(listed)))
        rnd.shuffle(listed)
        out[name] = listed
    for name in ("profiles", "consumption"):
        listed = list(getattr(world, name))
        rnd.shuffle(listed)
        out[name] = listed
    return out
