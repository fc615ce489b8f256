"""Bots: they open trades, place orders, follow them, and write down what they saw, with the mishaps drawn for them.

A bot knows from the exchange what it holds; the ledger is what it writes, never what it trades by, and it does not stop for a
pause. So the world at the exchange is the same whatever the pipeline does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal

from recon_pipeline.sandbox.exchange.accounts import Account
from recon_pipeline.sandbox.exchange.errors import ApiError
from recon_pipeline.sandbox.exchange.records import Order
from recon_pipeline_tests.soak.cast import HOUR_MS, MINUTE_MS, Market, Profile, client_id, sub_tag
from recon_pipeline_tests.soak.mishaps import (
    COURSE_WEIGHTS,
    MARK_WEIGHTS,
    ROW_WEIGHTS,
    Course,
    Marks,
    Rows,
    draw,
)
from recon_pipeline_tests.soak.scribe import Following, Scene, Scribe
from recon_pipeline_tests.soak.truth import Trade

NINE = Decimal("0.000000001")
SEES_AFTER = (3_000, 2 * MINUTE_MS, 15 * MINUTE_MS)
SEES_EVERY = 50 * MINUTE_MS


class Bot:
    """One profile's bot."""

    def __init__(
        self, profile: Profile, scene: Scene, seed: str, *, closes_shop_ms: int, trades_per_day: float
    ) -> None:
        self.profile = profile
        self.scene = scene
        self.rng = random.Random(f"{seed}:{profile.profile_id}")
        self.trades: list[Trade] = []
        self.scribe = Scribe(profile, scene, self.rng)
        self._closes_shop_ms = closes_shop_ms
        self._pause_ms = int(24 * HOUR_MS / trades_per_day)
        self._placed = 0

    # -- trading

    def begin(self) -> None:
        self._in(self.rng.randrange(self._pause_ms), self.open_trade)

    def open_trade(self) -> None:
        """Enter a trade, if the markets are right, and think of the next one."""
        if self.scene.now_ms >= self._closes_shop_ms:
            return
        self._in(int(self._pause_ms * self.rng.uniform(0.5, 1.5)), self.open_trade)
        market = self.rng.choice(self.profile.markets)
        running = [trade for trade in self.trades if not (trade.finished or trade.by_hand)]
        if len(running) >= 3 or self.scene.rests(self.profile.account_id, market.symbol):
            return
        trade = Trade(
            self.profile,
            f"t-{len(self.trades) + 1:03d}",
            market.symbol,
            market.side,
            to_be_held=self.rng.random() < 0.04,
        )
        self.trades.append(self.scene.truth.opened(trade))
        self._enter(trade, market)

    def _enter(self, trade: Trade, market: Market) -> None:
        qty = market.qty * Decimal(self.rng.randrange(50, 150)) / 100
        whole = not market.crypto and (market.side == "sell" or market.qty == market.qty.to_integral_value())
        qty = max(Decimal(1), qty.to_integral_value()) if whole else qty.quantize(Decimal("0.0001"))
        self._place(trade, "ENTRY", market.side, qty, "entry")

    def _exit(self, trade: Trade, share: Decimal) -> None:
        """Send an exit for a share of what the trade still holds."""
        if trade.by_hand or trade.finished:
            return
        held = self._held(trade)
        waiting = sum(
            (
                self.scene.truth.order(fact.order_id).remaining_qty
                for fact in self.scene.truth.of_trade(trade)
                if fact.is_open and fact.intent.action == "EXIT"
            ),
            Decimal(0),
        )
        free = held - waiting
        whole = "/" not in trade.symbol and held == held.to_integral_value()
        qty = free * share
        qty = max(Decimal(1), qty.to_integral_value()) if whole else qty.quantize(NINE, ROUND_DOWN)
        if free <= NINE:
            trade.finished = held <= NINE
            return
        self._place(trade, "EXIT", trade.exit_side, min(qty, free), f"exit-{self._number()}")

    def _held(self, trade: Trade) -> Decimal:
        """What the trade holds at the exchange: entries without the fee taken in coins, minus exits."""
        entries, exits = (self.scene.truth.executed(trade, action) for action in ("ENTRY", "EXIT"))
        if "/" in trade.symbol:
            account, own = self.scene.book.account(self.profile.account_id), set(trade.order_ids)
            booked = (told for told in account.bookings() if told.kind == "fee" and told.reference in own)
            entries += sum((told.qty for told in booked), Decimal(0))
        return max(entries - exits, Decimal(0))

    # -- orders

    def _place(self, trade: Trade, action: str, side: str, qty: Decimal, role: str) -> None:
        rng = self.rng
        course, rows, marks = draw(rng, COURSE_WEIGHTS), draw(rng, ROW_WEIGHTS), draw(rng, MARK_WEIGHTS)
        tag = sub_tag(self.profile.profile_id, trade.trade_id)
        named = self._client_id(trade, role)
        account = self.scene.book.account(self.profile.account_id)
        price = self.scene.book.market.price(trade.symbol)
        fraction = "/" not in trade.symbol and qty != qty.to_integral_value()
        if fraction:
            course = Course.MARKET
        if marks is Marks.NONE and action == "ENTRY":
            marks = Marks.BOTH  # an entry that nobody can know leaves nothing to reconcile but a position
        body: dict[str, object] = {"symbol": trade.symbol, "side": side, "qty": str(qty), "type": "market"}
        body["time_in_force"] = "day" if fraction else "gtc"
        if course is not Course.MARKET:
            away = price * (Decimal("0.6") if side == "buy" else Decimal("1.6"))
            places = Decimal("0.01") if "/" not in trade.symbol else NINE
            body |= {"type": "limit", "limit_price": str(away.quantize(places))}
        if marks in {Marks.BOTH, Marks.CLIENT_ID}:
            body["client_order_id"] = named
        if marks in {Marks.BOTH, Marks.TAG_ONLY}:
            body["subtag"] = tag
        if rng.random() < 0.025 and action == "EXIT":
            lost = self._client_id(trade, f"exit-{self._number()}")
            self.scribe.unsent(lost, trade, action, side, qty, price, tag)
        try:
            order = self.scene.book.submit(account, body)
        except ApiError:
            # Somebody else holds what it wanted to sell, or the money is gone: it tries again later.
            self._in(8 * HOUR_MS, lambda: self._go_on(trade, action))
            return
        self.scene.truth.placed(order, trade, action, evident=marks is not Marks.NONE)
        if course is Course.CANCELED and rng.random() < 0.4:
            rows = Rows.MISREAD_END
        following = Following(order.id, trade, action, rows, None if rows is Rows.NO_TAG else tag)
        self.scribe.pending(following, order)
        self._follow(following)
        self._run(course, order, account, trade, action)

    def _run(self, course: Course, order: Order, account: Account, trade: Trade, action: str) -> None:
        """Let a resting order go the way that was drawn for it."""
        rng, now = self.rng, self.scene.now_ms
        if course is Course.MARKET:
            return
        parts = self._parts(order, all_of_it=course in {Course.PARTS, Course.POSTED_LATE})
        at = now + rng.randrange(2, 240) * MINUTE_MS
        for part in parts:
            late = rng.randrange(1, 9) * HOUR_MS if course is Course.POSTED_LATE else 0
            self.scene.at(at, lambda part=part, late=late: self._fill(order.id, part, late))
            at += rng.randrange(5, 200) * MINUTE_MS
        if course in {Course.CANCELED, Course.EXPIRED}:
            self.scene.at(at, lambda: self._finish(order.id, course.value))
        elif course is Course.REJECTED:
            self.scene.at(now + rng.randrange(1, 30) * 1000, lambda: self._finish(order.id, "rejected"))
        elif course is Course.REPLACED:
            named = "" if rng.random() < 0.5 else self._client_id(trade, f"{action.lower()}-{self._number()}")
            self.scene.at(at, lambda: self._replace(order.id, account, named))

    def _parts(self, order: Order, *, all_of_it: bool) -> list[Decimal]:
        """Quantities to execute one after the other."""
        qty = order.qty or Decimal(0)
        whole = qty == qty.to_integral_value()
        number = self.rng.choice((1, 2, 3)) if all_of_it else self.rng.choice((0, 1, 1, 2))
        step = Decimal(1) if whole else Decimal("0.0001")
        parts: list[Decimal] = []
        left = qty
        for n in range(number):
            last = all_of_it and n == number - 1
            part = left if last else (left * Decimal(self.rng.randrange(20, 60)) / 100).quantize(step, ROUND_DOWN)
            if 0 < part <= left:
                parts.append(part)
                left -= part
        return parts

    def _fill(self, order_id: str, part: Decimal, posted_late_ms: int) -> None:
        book = self.scene.book
        order = self.scene.truth.order(order_id)
        if not order.is_open or part > order.remaining_qty:
            return
        if not posted_late_ms:
            book.fill(order_id, part)
            return
        account = book.account(order.account_id)
        at_ns = book.clock.now_ns()
        with book.lock:
            posted_ns = at_ns + posted_late_ms * 1_000_000
            book.desk.execute(account, order, part, book.market.price(order.symbol), at_ns, posted_ns=posted_ns)

    def _finish(self, order_id: str, status: str) -> None:
        if self.scene.truth.order(order_id).is_open:
            self.scene.book.finish(order_id, status)

    def _replace(self, order_id: str, account: Account, named: str) -> None:
        """Replace an order; the rest executes under the new id, whose row is often nobody's."""
        old = self.scene.truth.order(order_id)
        if old.status not in {"new", "partially_filled"}:
            return
        intent = self.scene.truth.fact(order_id)
        assert intent is not None
        try:
            new = self.scene.book.replace_order(account, order_id, {"client_order_id": named} if named else {})
        except ApiError:
            self._finish(order_id, "canceled")
            return
        trade, action = intent.intent.trade, intent.intent.action
        self.scene.truth.placed(new, trade, action, evident=intent.intent.evident)
        rows = self.rng.choice((Rows.GOOD, Rows.GOOD, Rows.LOST, Rows.LATE))
        self._follow(Following(new.id, trade, action, rows, sub_tag(self.profile.profile_id, trade.trade_id)))
        self.scene.at(
            self.scene.now_ms + self.rng.randrange(5, 300) * MINUTE_MS,
            lambda: self._fill(new.id, self.scene.truth.order(new.id).remaining_qty, 0),
        )

    # -- following

    def _follow(self, following: Following) -> None:
        delay = SEES_AFTER[following.sees] if following.sees < len(SEES_AFTER) else SEES_EVERY
        following.sees += 1
        self._in(delay + self.rng.randrange(2_000), lambda: self._see(following))

    def _see(self, following: Following) -> None:
        """Look at the order, write what is new, and act on its end."""
        order = self.scene.truth.order(following.order_id)
        if not following.stopped:
            self.scribe.seen(following, order)
        if order.is_open:
            self._follow(following)
        elif not following.over:
            following.over = True
            self._go_on(following.trade, following.action)

    # -- what comes next

    def _go_on(self, trade: Trade, action: str) -> None:
        """An order of the trade is over: plan the exits, or the rest of them."""
        if trade.by_hand or trade.finished or trade.to_be_held:
            return
        held = self._held(trade)
        if held <= NINE:
            open_orders = any(fact.is_open for fact in self.scene.truth.of_trade(trade))
            trade.finished = not open_orders
            return
        if action == "ENTRY":
            shares = self.rng.choice(((1,), (1,), (Decimal("0.4"), 1), (Decimal("0.3"), Decimal("0.5"), 1)))
        else:
            shares = (1,)
        after = 0
        for share in shares:
            after += int(self.rng.choice((0.2, 1, 4, 14)) * self.rng.uniform(0.5, 1.5) * HOUR_MS)
            self._in(after, lambda share=share: self._exit(trade, Decimal(share)))

    def _client_id(self, trade: Trade, role: str) -> str:
        return client_id(self.profile.profile_id, trade.trade_id, role)

    def _number(self) -> int:
        self._placed += 1
        return self._placed

    def _in(self, after_ms: int, act: Callable[[], None]) -> None:
        self.scene.at(self.scene.now_ms + after_ms, act)
