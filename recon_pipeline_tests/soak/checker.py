"""Judges every write of the pipeline against the truth at the time it was made. A witness of the database says what was written.

A write is wrong where it says something that is not true now or was not at some moment before (a reading may be stale), where
it represents an executed quantity twice or stops representing one, and where the books do not follow the rows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

from recon_pipeline_tests.soak.cast import HOUR_MS, sub_tag
from recon_pipeline_tests.soak.driver import World
from recon_pipeline_tests.soak.rows import BACKFILL, COUNTING, SYNTHETIC, Row, RowReader, executed_of, moment_ms, number
from recon_pipeline_tests.soak.truth import ZERO, Fact, Trade, TradeKey

FLAT = Decimal("0.001")
FEE = Decimal("0.0025")
SMALL_SHARE = Decimal("0.002")
PRICE_STEP = Decimal("0.00000001")
IDENTITY = ("order_id", "profile_id", "user_id", "trade_id", "client_order_id", "symbol", "side", "action")
STATED = ("status", "qty", "quantity", "filled_qty", "price", "filled_at", "timestamp", "sub_tag", *IDENTITY)


class Checker:
    """Counts what was written and keeps what was wrong."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rows = RowReader(world.truth)
        self.wrong: list[str] = []
        self.written: Counter[str] = Counter()
        self._cycle = -1

    def after_cycle(self, number_of_cycle: int) -> None:
        """Judge what changed since the last cycle. The bots are still while a cycle runs."""
        self._cycle = number_of_cycle
        changes = self.world.ledger.new_changes()
        touched: set[TradeKey] = set()
        delta: dict[str, Decimal] = defaultdict(lambda: ZERO)
        for change in changes:
            image = change["after"] or change["before"]
            if change["name"] == "profiles":
                self._wrong(image, "a profile was changed")
            if change["name"] == "orders":
                self._judge_order(change["op"], change["before"], change["after"])
                for row, sign in ((change["before"], -1), (change["after"], 1)):
                    fact = None if row is None else self.rows.order(row)
                    if fact is not None and row is not None:
                        delta[fact.order_id] += sign * executed_of(row)
            if "trade_id" in image:
                touched.add((str(image["profile_id"]), str(image["trade_id"])))
        if changes:
            rows = self._rows_of(touched)
            self._judge_representation(delta, rows)
            for key in sorted(touched):
                self._judge_books(key, rows.get(key, []))

    def _rows_of(self, trades: set[TradeKey]) -> dict[TradeKey, list[dict[str, Any]]]:
        found: dict[TradeKey, list[dict[str, Any]]] = defaultdict(list)
        told = self.world.ledger.rows(
            "SELECT o.* FROM public.orders AS o JOIN unnest(%s::text[], %s::text[]) AS t(p, d) "
            "ON o.profile_id = t.p AND o.trade_id = t.d ORDER BY o.order_id",
            [profile for profile, _ in sorted(trades)],
            [trade for _, trade in sorted(trades)],
        )
        for row in told:
            found[row["profile_id"], row["trade_id"]].append(row)
        return found

    # -- rows

    def _judge_order(self, op: str, before: Row | None, after: Row | None) -> None:
        if after is None:
            self._wrong(before or {}, "a row was deleted")
            return
        if before is not None:
            moved = [name for name in IDENTITY if before[name] != after[name]]
            if moved:
                self._wrong(after, f"an update changed {', '.join(moved)} (was {[before[name] for name in moved]})")
            if all(before[name] == after[name] for name in STATED):
                self._wrong(after, "an update that changes nothing")
        trade = self.rows.trade(after)
        if trade is None:
            self._wrong(after, f"a row of a trade that does not exist: {after['trade_id']!r}")
            return
        order_id = str(after["order_id"])
        kind = BACKFILL if order_id.startswith(BACKFILL) else SYNTHETIC if order_id.startswith(SYNTHETIC) else "own"
        self.written[f"{kind.rstrip('-')} {op.lower()} {after['status']}"] += 1
        expected = sub_tag(*trade.key)
        if after["sub_tag"] not in {None, "", expected}:
            self._wrong(after, f"sub-tag {after['sub_tag']!r}")
        if before is not None and all(before[name] == after[name] for name in STATED if name != "sub_tag"):
            return
        if kind == "own":
            self._judge_own(trade, before, after)
        elif op == "INSERT":
            (self._judge_backfill if kind == BACKFILL else self._judge_synthetic)(trade, after)
        elif after["status"] != "canceled":
            self._wrong(after, f"a stand-in row was set to {after['status']}")

    def _judge_own(self, trade: Trade, before: Row | None, after: Row) -> None:
        fact = self.rows.order(after)
        claimed = executed_of(after)
        if fact is None:
            if before is None or claimed or after["status"] in COUNTING:
                self._wrong(after, "a row of an order that the exchange does not know")
            return
        intent = fact.intent
        meant = (intent.trade.key, intent.action, intent.side, trade.symbol)
        said = (trade.key, str(after["action"]).upper(), str(after["side"]).lower(), str(after["symbol"]))
        if meant[:3] != said[:3] or meant[3].replace("/", "") != said[3].replace("/", "").upper():
            self._wrong(after, f"it says {said}, {meant} is true")
        if claimed > fact.executed:
            self._wrong(after, f"{claimed} executed, {fact.executed} is true")
        if after["status"] == "filled" and fact.is_open:
            self._wrong(after, f"filled, but the order is {fact.status}")
        if after["status"] in COUNTING:
            self._judge_facts(before, after, fact)

    def _judge_facts(self, before: Row | None, after: Row, fact: Fact) -> None:
        """Quantity, price and time must be those of one state of the order."""
        states = [state for state in self.rows.versions(fact) if state.executed == executed_of(after)]
        if not states:
            self._wrong(after, f"{executed_of(after)} was never the executed quantity; now it is {fact.executed}")
            return
        if not any(
            state.price is not None and abs(state.price - number(after["price"])) <= PRICE_STEP for state in states
        ):
            self._wrong(after, f"price {after['price']}, {states[-1].price} is true")
        told = moment_ms(after["filled_at"])
        if told not in {state.executed_ms for state in states}:
            self._wrong(after, f"filled at {told}, {states[-1].executed_ms} is true")
        if before is None and after["timestamp"] != told:
            self._wrong(after, f"a new row of {after['timestamp']} that was filled at {told}")

    def _judge_backfill(self, trade: Trade, after: Row) -> None:
        if str(after["action"]).upper() != "EXIT" or str(after["side"]).lower() != trade.exit_side:
            self._wrong(after, f"a backfill row that is {after['action']} {after['side']}")
        fact = self.rows.order(after)
        if fact is not None:
            if fact.intent.action != "EXIT" or executed_of(after) > fact.executed:
                self._wrong(after, f"{executed_of(after)} of {fact.intent.action} {fact.order_id} with {fact.executed}")
            return
        if not self.rows.is_dust(after):
            self._wrong(after, "a backfill row that cites no order of its trade")
            return
        self.written["BFILL dust"] += 1
        left = self._left(trade)
        entry = self.world.truth.executed(trade, "ENTRY")
        allowed = max(FLAT, SMALL_SHARE * entry, FEE * entry if "/" in trade.symbol else ZERO)
        if executed_of(after) > min(left, allowed) + FLAT / 1000:
            self._wrong(after, f"dust of {executed_of(after)}: {left} is left of the trade, {allowed} is dust")
        self._must_be_flat(trade, after)

    def _judge_synthetic(self, trade: Trade, after: Row) -> None:
        """It must close what the ledger leaves open, on a flat symbol, where no execution that can be read explains it."""
        if str(after["action"]).upper() != "EXIT" or str(after["side"]).lower() != trade.exit_side:
            self._wrong(after, f"a synthetic exit that is {after['action']} {after['side']}")
        represented: dict[str, Decimal] = defaultdict(lambda: ZERO)
        for row in self._rows_of({trade.key})[trade.key]:
            fact = self.rows.order(row)
            if fact is not None:
                represented[fact.order_id] += executed_of(row)
        facts = self.world.truth.of_trade(trade)
        open_now = sum(
            (represented[fact.order_id] * (1 if fact.intent.action == "ENTRY" else -1) for fact in facts), ZERO
        )
        read_from_ms = self.world.now_ms - int(self.world.plan.lookback_hours * HOUR_MS)
        readable = [
            fact
            for fact in facts
            if fact.executed > represented[fact.order_id]
            and is_evident(self.world, fact)
            # a part that is older than the look-back is read with the rest of its order
            and (fact.executed_ms or 0) >= read_from_ms
        ]
        if executed_of(after) != open_now:
            self._wrong(after, f"a synthetic exit of {executed_of(after)}: {open_now} is open in the ledger")
        for fact in readable:
            self._wrong(after, f"a synthetic exit, but {fact.intent.action} {fact.order_id} executed {fact.executed}")
        self._must_be_flat(trade, after)

    def _must_be_flat(self, trade: Trade, after: Row) -> None:
        held = self.world.truth.position(trade.profile.account_id, trade.symbol)
        if abs(held) > FLAT:
            self._wrong(after, f"the exchange holds {held} {trade.symbol}")

    def _left(self, trade: Trade) -> Decimal:
        """What the trade's own orders leave open."""
        return self.world.truth.executed(trade, "ENTRY") - self.world.truth.executed(trade, "EXIT")

    # -- sums

    def _judge_representation(self, delta: dict[str, Decimal], rows: dict[TradeKey, list[dict[str, Any]]]) -> None:
        """No order may come to be represented more than it executed, or less than it was and executed."""
        totals: dict[str, Decimal] = defaultdict(lambda: ZERO)
        for told in rows.values():
            for row in told:
                fact = self.rows.order(row)
                if fact is not None:
                    totals[fact.order_id] += executed_of(row)
        for order_id, moved in delta.items():
            fact = self.world.truth.fact(order_id)
            assert fact is not None
            now, was = totals[order_id], totals[order_id] - moved
            if now > max(fact.executed, was) or (moved > 0 and now > fact.executed):
                self._wrong({"order_id": order_id}, f"represented {was} before, {now} after, {fact.executed} executed")
            if now < min(fact.executed, was):
                self._wrong({"order_id": order_id}, f"represented {was} before, only {now} of {fact.executed} after")

    def _judge_books(self, key: TradeKey, rows: list[dict[str, Any]]) -> None:
        """Position, history and capital must say what the rows say, once the pipeline has touched them."""
        for problem in book_problems(self.world, key, rows):
            self._wrong({"profile_id": key[0], "trade_id": key[1], "order_id": "books"}, problem)

    def _wrong(self, row: Row, problem: str) -> None:
        place = "/".join(str(row.get(name, "")) for name in ("profile_id", "trade_id", "order_id"))
        self.wrong.append(f"cycle {self._cycle} {place}: {problem}")


def is_evident(world: World, fact: Fact) -> bool:
    """Whether the exchange says whose order it is: its own marks, and an entry whose mark spells the trade out.

    A client order id alone is not clear where the profile's id begins with a sibling's: ``bytelyst-a-b-t`` may be trade ``b-t``
    of ``a``. The trade of an entry that nobody wrote down is then nobody's.
    """
    trade = fact.intent.trade
    unclear = any(
        trade.profile.profile_id.startswith(f"{other.profile_id}-")
        for other in world.profiles
        if other.account_id == trade.profile.account_id
    )
    spelt = any(
        told.intent.evident
        and trade.trade_id in told.client_order_id
        and (not unclear or world.truth.order(told.order_id).subtag)
        for told in world.truth.of_trade(trade)
        if told.intent.action == "ENTRY"
    )
    return fact.intent.evident and spelt


def book_problems(world: World, key: TradeKey, rows: list[dict[str, Any]]) -> list[str]:
    """How a trade's position, history and capital differ from what its rows of ``orders`` say."""
    sums = {action: [row for row in rows if str(row["action"]).upper() == action] for action in ("ENTRY", "EXIT")}
    total = {action: sum(map(executed_of, told), ZERO) for action, told in sums.items()}
    if not total["ENTRY"]:
        return []
    left = total["ENTRY"] - total["EXIT"]
    if left < 0:
        return []  # a trade that is not understood keeps its books, and is named
    average = {
        action: sum((executed_of(row) * number(row["price"]) for row in told), ZERO) / total[action]
        for action, told in sums.items()
        if total[action]
    }
    problems = []
    found = world.ledger.rows(
        "SELECT h.entry_qty, h.exit_qty, h.entry_price, h.exit_price, h.realized_pnl_usd, h.status, p.qty, p.avg_entry_price, "
        "p.status AS position_status, c.reserved_usd FROM public.trade_history AS h "
        "LEFT JOIN public.positions AS p USING (profile_id, trade_id) "
        "LEFT JOIN public.capital_ledger AS c USING (profile_id, trade_id) WHERE profile_id = %s AND trade_id = %s",
        *key,
    )
    if not found:
        return ["it has no history"]
    book = found[0]
    closed = abs(left) <= Decimal("0.00000001")
    status = "closed" if closed else "open"
    side = world.truth.trades[key].entry_side if key in world.truth.trades else "buy"
    wanted: dict[str, Any] = {"entry_qty": total["ENTRY"], "exit_qty": total["EXIT"], "entry_price": average["ENTRY"]}
    if total["EXIT"]:
        gain = (average["EXIT"] - average["ENTRY"]) * total["EXIT"] * (1 if side == "buy" else -1)
        wanted |= {"exit_price": average["EXIT"], "realized_pnl_usd": gain}
    if abs(number(book["qty"])) != abs(left):
        problems.append(f"position {book['qty']}, the rows leave {left}")
    if (book["status"], book["position_status"] or "closed") != (status, status):
        problems.append(f"history {book['status']}, position {book['position_status']}, the rows say {status}")
    for name, value in wanted.items():
        slack = (
            Decimal(0) if name.endswith("qty") else abs(value) / 10**6 + Decimal("0.01") * (name == "realized_pnl_usd")
        )
        if book[name] is None or abs(number(book[name]) - value) > slack:
            problems.append(f"{name} {book[name]}, the rows say {value:.9f}")
    waiting = any(
        row["status"] not in {*COUNTING, "canceled", "expired", "rejected", "replaced"}
        or row["status"] == "partially_filled"
        for row in sums["ENTRY"]
    )
    reserved = max(left, ZERO) * average["ENTRY"]
    if not waiting and abs(number(book["reserved_usd"]) - reserved) > abs(reserved) / 10**6 + Decimal("0.01"):
        problems.append(f"{book['reserved_usd']} dollars reserved, {reserved:.2f} are open")
    return problems
