"""Books made at random: rich ones that try everything, and plain ones on which the source system is right too.

What belongs here: generators over a ``random.Random`` (hypothesis hands in one that it can shrink; a plain seeded one
serves long runs). What does not: any expectation about what the engine does with the books.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Any

Book = dict[str, Any]
Record = dict[str, Any]

START_MS = 1_772_445_600_000  # 2026-03-02T10:00:00Z
NOW_MS = START_MS + 6 * 3_600_000
MINUTE = 60_000
E9 = 10**9
SYMBOLS = ("AAPL", "BTC/USD", "SHIB/USD")
TRADES = ("t1", "t2", "t-1", "T3", "t3-exit", "b-t1", "7")
PROFILES = ("p1", "p2", "p1-b")
STRONG_GATES = ("flat", "flat_or_parity", "evidence")


def iso(at_ms: int, nanoseconds: str = "") -> str:
    """ISO 8601 with milliseconds, or with `nanoseconds` appended to them."""
    seconds, millis = divmod(at_ms, 1000)
    days, second = divmod(seconds, 86_400)
    year, month, day = _civil(days)
    clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
    return f"{year:04d}-{month:02d}-{day:02d}T{clock}.{millis:03d}{nanoseconds}Z"


def _civil(days: int) -> tuple[int, int, int]:
    days += 719_468
    era, day_of_era = divmod(days, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return year_of_era + era * 400 + (month <= 2), month, day_of_year - (153 * shifted + 2) // 5 + 1


def amount(units: int) -> str:
    """Units of 1e-9 as plain decimal text."""
    whole, part = divmod(abs(units), E9)
    digits = f"{whole}.{part:09d}".rstrip("0").rstrip(".") if part else str(whole)
    return f"-{digits}" if units < 0 else digits


def backfill_id(profile: str, trade: str, exchange_order_id: str, at_ms: int) -> str:
    logical = f"{profile}:{trade}:{exchange_order_id}:{iso(at_ms)}"
    return "BFILL-" + hashlib.md5(logical.encode(), usedforsecurity=False).hexdigest()


@dataclass
class _Trade:
    profile: str
    trade_id: str
    symbol: str
    side: str
    entered: int = 0
    exited: int = 0
    last_ms: int = 0
    orders: list[Record] = field(default_factory=list)

    @property
    def open(self) -> int:
        return self.entered - self.exited

    @property
    def exit_side(self) -> str:
        return "sell" if self.side == "buy" else "buy"


def _quantity(rnd: Random) -> int:
    kind = rnd.randrange(12)
    if kind < 6:
        return rnd.randint(1, 20) * E9
    if kind < 8:
        return rnd.randint(1, 400) * E9 // 8
    if kind == 8:
        return rnd.randint(1, 30)  # around the epsilon of 10 units
    if kind == 9:
        return rnd.randint(1, 10**10)
    if kind == 10:
        return rnd.randint(1, 9) * 10**6  # dust
    return rnd.randint(1, 9) * 10**22 + rnd.randrange(3)  # beyond int64


def _price(rnd: Random) -> str:
    return rnd.choice(("100", "110.5", "60000", "0.00001234", "0.05", "99.123456789"))


def _spell(rnd: Random, units: int) -> object:
    """A quantity as the several producers spell it; floats only where they are exact."""
    text = amount(units)
    if rnd.randrange(6) == 0 and units % E9 == 0 and units < 2**53:
        return rnd.choice((units // E9, float(units // E9)))
    return text


# --- rich books ---------------------------------------------------------------------------------------------------------


def rich_book(rnd: Random, *, strong: bool = False) -> Book:
    """A book that tries everything the engine has a rule for; with `strong`, no heuristic is allowed."""
    book: Book = {"config": _config(rnd, strong=strong), "profile_id": "p1", "user_id": "u1", "now_ms": NOW_MS}
    symbols = SYMBOLS[: rnd.choice((1, 1, 2, 3))]
    rows: list[Record] = []
    trades = []
    keys = {
        (rnd.choice(PROFILES[: rnd.choice((1, 1, 1, 1, 1, 2, 3))]), rnd.choice(TRADES))
        for _ in range(rnd.randint(1, 4))
    }
    for number, (profile, trade_id) in enumerate(sorted(keys)):
        trade = _Trade(profile, trade_id, rnd.choice(symbols), rnd.choice(("buy", "buy", "sell")))
        trades.append(trade)
        for part in range(rnd.choice((1, 1, 2))):
            quantity = _quantity(rnd)
            trade.entered += quantity
            trade.last_ms = max(trade.last_ms, START_MS + rnd.randrange(60) * MINUTE)
            rows.append(_row(rnd, trade, f"e{number}-{part}", trade.side, "ENTRY", quantity, trade.last_ms))
    keyed = book["config"].get("RECON_EXIT_BACKFILL_REQUIRE_STRONG_ATTRIBUTION", True)
    orders = [_order(rnd, rnd.choice(trades), n, keyed=keyed) for n in range(rnd.randint(0, 5))]
    _replace(rnd, orders)
    for order in orders:
        rows.extend(_represent(rnd, order, trades))
    book["lifecycle_rows"] = rows
    book["open_orders"] = [_pending(rnd, rnd.choice(trades), n) for n in range(rnd.choice((0, 0, 0, 0, 0, 0, 1, 2)))]
    book["positions"] = {symbol: _position(rnd, trades, symbol) for symbol in symbols if rnd.randrange(6)}
    book["closed_orders"] = {symbol: [o["order"] for o in orders if o["trade"].symbol == symbol] for symbol in symbols}
    for listing in book["closed_orders"].values():
        if listing and rnd.randrange(4) == 0:
            listing.append(copy.deepcopy(rnd.choice(listing)))
    if rnd.randrange(8) == 0:
        book["managed_symbols"] = rnd.sample(SYMBOLS, rnd.randint(0, 2))
    if rnd.randrange(10) == 0:
        book["existing_order_ids"] = [row["order_id"] for row in rows if rnd.randrange(3)]
    book["apply"] = rnd.randrange(4) == 0
    return book


def _config(rnd: Random, *, strong: bool) -> Record:
    config: Record = {"ENABLE_RECON_EXIT_BACKFILL": True}
    config["RECON_EXIT_BACKFILL_POSITION_GATE"] = rnd.choice(STRONG_GATES)
    if not strong and rnd.randrange(2):
        config["RECON_EXIT_BACKFILL_REQUIRE_STRONG_ATTRIBUTION"] = rnd.randrange(3) == 0
        config["RECON_EXIT_BACKFILL_ALLOW_HEURISTIC_MATCH"] = True
    if rnd.randrange(4) == 0:
        config["RECON_EXIT_BACKFILL_FILL_AFTER_TRADE_GRACE_MINUTES"] = rnd.choice((0, 1, 60))
    if rnd.randrange(4) == 0:
        config["RECON_EXIT_BACKFILL_DUST_ABS_QTY"] = rnd.choice(("0", "0.01", "2"))
        config["RECON_EXIT_BACKFILL_DUST_MAX_NOTIONAL_USD"] = rnd.choice(("0", "1000"))
    return config


def _row(rnd: Random, trade: _Trade, order_id: str, side: str, action: str, quantity: int, at_ms: int) -> Record:
    row: Record = {
        "profile_id": trade.profile,
        "order_id": order_id,
        "trade_id": trade.trade_id,
        "symbol": trade.symbol,
        "side": rnd.choice((side, side.upper())),
        "action": action,
        "qty": _spell(rnd, quantity),
        "price": _price(rnd),
        "status": rnd.choice(("filled", "filled", "filled", "partially_filled", "partially-filled")),
        "timestamp": rnd.choice((iso(at_ms), at_ms, iso(at_ms, "654321"))),
    }
    oddity = rnd.randrange(40)
    if oddity == 0:
        del row["action"]
    elif oddity == 1:
        row["quantity"] = row["qty"]
    elif oddity == 2:
        row["quantity"] = amount(quantity + 1)
    elif oddity == 3:
        row["created_at"] = row.pop("timestamp")
    elif oddity == 4:
        row["status"] = rnd.choice(("canceled", "unknown", "pending_new", "rejected"))
    elif oddity == 5:
        row[rnd.choice(("side", "symbol", "qty", "timestamp", "price"))] = rnd.choice((None, "", "what", -1, True))
    elif oddity == 6:
        row["symbol"] = trade.symbol.replace("/", "").lower()
    return row


def _order(rnd: Random, trade: _Trade, number: int, *, keyed: bool) -> Record:
    """An exchange order that is meant for `trade`, with keys that say so, something else, or nothing."""
    open_left = max(1, trade.entered - trade.exited)
    quantity = rnd.choice(
        (open_left, max(1, open_left // 2), max(1, open_left - rnd.randrange(1, 3 * 10**6)), _quantity(rnd))
    )
    at_ms = trade.last_ms + rnd.choice((-90, -7, -3, 0, 1, 5, 10, 20, 30, 60)) * MINUTE + rnd.randrange(3)
    side = trade.exit_side if rnd.randrange(16) else trade.side
    order_id = f"x{number}"
    if rnd.randrange(6) == 0:
        order: Record = {
            "id": order_id,
            "symbol": trade.symbol,
            "side": side,
            "status": rnd.choice(("closed", "canceled", "open")),
            "amount": _spell(rnd, quantity),
            "filled": _spell(rnd, quantity),
            "average": _price(rnd),
            "timestamp": at_ms,
            rnd.choice(("lastTradeTimestamp", "lastUpdateTimestamp")): at_ms,
        }
        client_key, trade_key = "clientOrderId", "tradeId"
    else:
        order = {
            "id": order_id,
            "symbol": trade.symbol if rnd.randrange(8) else trade.symbol.replace("/", ""),
            "side": side,
            "status": rnd.choice(("filled", "filled", "filled", "partially_filled", "canceled", "expired", "replaced")),
            "qty": amount(quantity),
            "filled_qty": _spell(rnd, quantity),
            "filled_avg_price": _price(rnd),
            "filled_at": rnd.choice((iso(at_ms), iso(at_ms, "999999"), at_ms)),
            "asset_class": "crypto" if "/" in trade.symbol else "us_equity",
        }
        client_key, trade_key = "client_order_id", "trade_id"
    _attribute(rnd, order, trade, client_key, trade_key, keyed=keyed)
    oddity = rnd.randrange(24)
    if oddity == 0:
        order[rnd.choice(("id", "symbol", "side", "filled_qty", "filled_at", "filled_avg_price", "status"))] = (
            rnd.choice((None, "", "what", -1, True, [], {}))
        )
    elif oddity == 1:
        order["info"] = {"subtag": f"bytelyst:{rnd.choice(('p1', 'p2'))}"}
    return {"order": order, "trade": trade, "quantity": quantity, "at_ms": at_ms, "id": order_id}


def _replace(rnd: Random, orders: list[Record]) -> None:
    """Now and then an order replaces the one before it, often without a key of its own."""
    for before, after in pairwise(orders):
        if rnd.randrange(8) == 0:
            after["order"]["replaces"] = before["id"]
            before["order"]["replaced_by"] = after["id"]
            if rnd.randrange(3):
                for key in ("trade_id", "tradeId", "client_order_id", "clientOrderId", "subtag", "sub_tag"):
                    after["order"].pop(key, None)


def _token(identifier: str) -> str:
    return "".join(c for c in identifier.lower() if c.isascii() and c.isalnum())


def _attribute(rnd: Random, order: Record, trade: _Trade, client_key: str, trade_key: str, *, keyed: bool) -> None:
    how = rnd.randrange(12) if keyed or rnd.randrange(3) == 0 else 11
    client = f"bytelyst-{trade.profile}-{trade.trade_id}"
    if how < 4:
        order[client_key] = client + rnd.choice(
            ("-exit", "-exit-2", "-EXIT", "", "-entry" if rnd.randrange(4) == 0 else "-exit")
        )
    elif how < 6:
        order[trade_key] = trade.trade_id
    elif how < 8:
        order[rnd.choice(("subtag", "sub_tag"))] = f"bytelyst:{_token(trade.profile)}:{_token(trade.trade_id)}"
    elif how == 8:  # two keys that may disagree
        order[trade_key] = rnd.choice(TRADES)
        order[client_key] = client + "-exit"
    elif how == 9:  # foreign or malformed tags beside a key
        order[client_key] = client + "-exit"
        order["subtag"] = rnd.choice(("bytelyst:p9:t1", "bytelyst:p1", "someone-else", "bytelyst:p1:t9", "bytelyst::"))
    elif how == 10:
        order[client_key] = rnd.choice(
            ("bytelyst-p1-t99-exit", "bytelyst-p9-t1-exit", "bytelyst-p1-b-t1-exit", "human")
        )


def _represent(rnd: Random, made: Record, trades: list[_Trade]) -> list[Record]:
    """Ledger rows that already represent (part of) an exchange order; mostly none."""
    trade, how = made["trade"], rnd.randrange(18)
    if how > 3:
        return []
    part = made["quantity"] if rnd.randrange(3) else max(1, made["quantity"] // 2)
    if how == 0:
        order_id = made["id"]
    elif how == 1:
        order_id = made["order"].get("client_order_id") or made["id"]
    else:
        if how == 3:
            trade = rnd.choice(trades)
        order_id = backfill_id(trade.profile, trade.trade_id, made["id"], made["at_ms"])
    row = _row(rnd, trade, order_id, trade.exit_side, "EXIT", part, made["at_ms"])
    if how >= 2 and rnd.randrange(3) == 0:
        row["status"] = "canceled"
    else:
        trade.exited += part
    return [row]


def _pending(rnd: Random, trade: _Trade, number: int) -> Record:
    row: Record = {
        "profile_id": trade.profile,
        "order_id": f"w{number}",
        "symbol": trade.symbol,
        "status": "new",
        "side": "sell",
    }
    how = rnd.randrange(4)
    if how < 2:
        row["trade_id"] = trade.trade_id
    elif how == 2:
        row["order_id"] = f"x{number}"
    if rnd.randrange(6) == 0:
        del row["symbol"]
    return row


def _position(rnd: Random, trades: list[_Trade], symbol: str) -> object:
    signed = [(trade.open if trade.side == "buy" else -trade.open) for trade in trades if trade.symbol == symbol]
    how = rnd.randrange(14) - 4
    if how < 4:
        return rnd.choice(("0", 0, {"qty": "0"}))
    if how < 7:  # what is left when some of the trades are closed
        quantity = sum(part for part in signed if rnd.randrange(2))
    elif how == 7:
        return rnd.choice((None, "many", {}, {"qty": None}, [], True))
    else:
        quantity = sum(signed) + rnd.choice((0, 1, E9))
    if rnd.randrange(3) == 0:
        return {"qty": amount(abs(quantity)), "side": "short" if quantity < 0 else "long"}
    return amount(quantity)


def spoiled(rnd: Random, book: Book) -> Book:
    """The book with a few values anywhere replaced by junk, mostly deep inside."""
    spoilt = copy.deepcopy(book)
    for _ in range(rnd.randint(1, 3)):
        node: Any = spoilt
        while True:
            keys = sorted(node, key=str) if isinstance(node, dict) else list(range(len(node)))
            deep = [key for key in keys if isinstance(node[key], dict | list) and node[key]]
            if deep and rnd.randrange(12):
                node = node[rnd.choice(deep)]
                continue
            node[rnd.choice(keys)] = junk(rnd)
            break
    return spoilt


JUNK: tuple[Callable[[Random], object], ...] = (
    lambda _: None,
    lambda _: True,
    lambda _: "",
    lambda _: "  ",
    lambda _: "NaN",
    lambda _: float("inf"),
    lambda _: "1e400",
    lambda _: "-0",
    lambda _: 10**400,
    lambda _: 1e308,
    lambda _: "9" * 70,
    lambda _: "\ud800",
    lambda _: "\x00",
    lambda _: "٣",
    lambda _: [],
    lambda _: {},
    lambda _: [[]],
    lambda _: {"qty": {"qty": 1}},
    lambda _: "bytelyst-p1-",
    lambda _: "9999-99-99T99:99:99Z",
    lambda _: "0001-01-01T00:00:00+23:59",
    lambda rnd: rnd.randrange(-(10**30), 10**30),
    lambda rnd: rnd.choice(("p1", "x0", "AAPL", "t1", "BTC/USD", "filled", "buy")),
)


def junk(rnd: Random) -> object:
    return rnd.choice(JUNK)(rnd)


# --- plain books --------------------------------------------------------------------------------------------------------


def plain_book(rnd: Random) -> Book:
    """A book inside the borders that ``source_rules`` names: the source and the engine have to agree on it."""
    evidence_gate = rnd.randrange(3) == 0
    config = {
        "ENABLE_RECON_EXIT_BACKFILL": True,
        "RECON_EXIT_BACKFILL_POSITION_GATE": "evidence" if evidence_gate else rnd.choice(STRONG_GATES),
        "RECON_EXIT_BACKFILL_CRYPTO_FEE_BPS": "0",
        "RECON_EXIT_BACKFILL_DUST_MAX_NOTIONAL_USD": "1000000000",
        "RECON_EXIT_BACKFILL_FILL_AFTER_TRADE_GRACE_MINUTES": rnd.choice((1, 5, 30)),
        "RECON_EXIT_BACKFILL_DUST_ABS_QTY": rnd.choice(("0.001", "0.05", "0")),
        "RECON_EXIT_BACKFILL_DUST_REL_PCT": rnd.choice(("0.002", "0.01", "0")),
    }
    grace = int(config["RECON_EXIT_BACKFILL_FILL_AFTER_TRADE_GRACE_MINUTES"]) * MINUTE
    book: Book = {
        "config": config,
        "profile_id": "p1",
        "user_id": "u1",
        "now_ms": NOW_MS,
        "apply": rnd.randrange(3) == 0,
    }
    rows: list[Record] = []
    listed: dict[str, list[Record]] = {symbol: [] for symbol in SYMBOLS}
    pending: list[Record] = []
    number = 0
    for index, trade_id in enumerate(rnd.sample(("t1", "t2", "a7", "b-9", "K3"), rnd.randint(1, 5))):
        trade = _Trade("p1", trade_id, rnd.choice(SYMBOLS), rnd.choice(("buy", "sell")))
        first_ms = START_MS + rnd.randrange(7_500) * 8 + index  # no two trades begin together
        trade.last_ms = first_ms
        for part in range(rnd.randint(1, 3)):
            quantity = _eight_places(rnd)
            trade.entered += quantity
            trade.last_ms += rnd.randrange(20 * MINUTE)
            at_ms = first_ms if part == 0 else trade.last_ms
            rows.append(_plain_row(rnd, trade, f"e{index}-{part}", trade.side, "ENTRY", quantity, at_ms))
        if rnd.randrange(3) == 0 and trade.entered > 20:
            quantity = rnd.randrange(1, trade.entered // 20) * 10 if rnd.randrange(6) else trade.entered
            trade.exited += quantity
            trade.last_ms += rnd.randrange(1, MINUTE)
            rows.append(_plain_row(rnd, trade, f"r{index}", trade.exit_side, "EXIT", quantity, trade.last_ms))
        if rnd.randrange(8) == 0:
            pending.append({"order_id": f"w{index}", "trade_id": trade_id, "symbol": trade.symbol, "status": "new"})
        at_ms = trade.last_ms - rnd.choice((0, grace))
        for quantity in _plain_exits(rnd, trade.open):
            at_ms += rnd.randrange(1, 10 * MINUTE)
            listed[trade.symbol].append(_plain_order(rnd, trade, f"x{number}", quantity, at_ms))
            number += 1
        if rnd.randrange(4) == 0:
            stale_ms = first_ms - grace - rnd.randrange(1, 60 * MINUTE)
            listed[trade.symbol].append(_plain_order(rnd, trade, f"x{number}", _eight_places(rnd), stale_ms))
            number += 1
        if rnd.randrange(4) == 0:
            wrong_side = _plain_order(rnd, trade, f"x{number}", _eight_places(rnd), trade.last_ms + MINUTE)
            listed[trade.symbol].append({**wrong_side, "side": trade.side})
            number += 1
    if rnd.randrange(3) == 0:
        stray = _Trade("p1", "stray", rnd.choice(SYMBOLS), "buy", last_ms=START_MS)
        order = _plain_order(rnd, stray, f"x{number}", E9, NOW_MS - MINUTE)
        for key in ("trade_id", "client_order_id", "subtag"):
            order.pop(key, None)
        listed[stray.symbol].append(order)
    for rows_of_symbol in listed.values():
        rnd.shuffle(rows_of_symbol)
    held = {symbol: rnd.choice(("0", "0", "3.5")) if evidence_gate else "0" for symbol in SYMBOLS}
    return {**book, "lifecycle_rows": rows, "open_orders": pending, "positions": held, "closed_orders": listed}


def _eight_places(rnd: Random) -> int:
    return rnd.choice((rnd.randint(1, 50) * E9, rnd.randint(10**8, 10**10) * 10, rnd.randint(8, 40) * E9 // 8))


def _plain_exits(rnd: Random, open_left: int) -> list[int]:
    """Executions, oldest first, of which all but the oldest sum to less than what is open."""
    if open_left <= 20 or rnd.randrange(5) == 0:
        return []
    ending = rnd.randrange(4)
    if ending == 0:
        total = open_left
    elif ending == 1:
        total = max(10, open_left - rnd.randrange(1, 10**5) * 10)  # a remainder that may be dust
    elif ending == 2:
        total = max(10, rnd.randrange(1, open_left // 10 + 1) * 10)
    else:
        return [open_left + rnd.randrange(1, 10**8) * 10]
    parts = []
    while total > 20 and len(parts) < 3 and rnd.randrange(2):
        part = rnd.randrange(1, total // 10) * 10
        parts.append(part)
        total -= part
    return [*parts, total]


def _plain_row(rnd: Random, trade: _Trade, order_id: str, side: str, action: str, quantity: int, at_ms: int) -> Record:
    row = {
        "order_id": order_id,
        "trade_id": trade.trade_id,
        "symbol": trade.symbol,
        "side": side,
        "action": action,
        rnd.choice(("qty", "quantity")): amount(quantity),
        "price": rnd.choice(("100", "250.25", "0.00001234")),
        "status": rnd.choice(("filled", "partially_filled", "partially-filled")),
        "timestamp": rnd.choice((at_ms, iso(at_ms), str(at_ms))),
    }
    if rnd.randrange(4) == 0:
        row["user_id"] = "u7"
    if rnd.randrange(4) == 0:
        row["created_at"] = row.pop("timestamp")
    return row


def _plain_order(rnd: Random, trade: _Trade, order_id: str, quantity: int, at_ms: int) -> Record:
    order = {
        "id": order_id,
        "symbol": trade.symbol if rnd.randrange(4) else trade.symbol.replace("/", ""),
        "side": trade.exit_side,
        "status": rnd.choice(("filled", "partially_filled", "Partially-Filled")),
        "filled_qty": amount(quantity),
        "filled_avg_price": rnd.choice(("101", "99.5", "0.00001234", "12345.67890123")),
        "filled_at": rnd.choice((iso(at_ms), iso(at_ms, "123456"), at_ms)),
    }
    how = rnd.randrange(3)
    if how == 0:
        order["trade_id"] = trade.trade_id
    elif how == 1:
        order["client_order_id"] = f"bytelyst-p1-{trade.trade_id}{rnd.choice(('-exit', '-EXIT', ''))}"
    else:
        order["subtag"] = f"bytelyst:p1:{_token(trade.trade_id)}"
    return order
