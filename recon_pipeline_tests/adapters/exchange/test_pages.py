"""However a history is cut into pages, repeated, overlapped and split over readings: the executions are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from recon_pipeline.domain.quantities import decimal_text_e9
from recon_pipeline.exchange.evidence import Reading, ReadingPolicy
from recon_pipeline.exchange.evidence_store import MemoryEvidenceStore
from recon_pipeline.exchange.gateway import Absent, AccountReading, Found
from recon_pipeline_tests.adapters.exchange.world import NOW, ago, ms, order_id


@dataclass
class Exchange:
    """Answers from a history as of a minute of the window; the pages are cut and repeated as `cuts` says."""

    orders: list[tuple[int, list[tuple[int, int]]]]  # minute of submission, (minute, quantity in e9) of each execution
    cuts: Sequence[tuple[int, int]]  # (rows, rows repeated) of each page, in turn
    minute: int
    calls: int = 0
    rate_remaining: int | None = None
    pages: int = field(default=0)

    def _at(self, minute: int) -> str:
        return f"{(ago(days=2) + timedelta(minutes=minute)).isoformat()}"

    def _page(self, rows: list[dict[str, Any]], token: str) -> list[dict[str, Any]]:
        self.calls += 1
        start = next((at + 1 for at, row in enumerate(rows) if row["id"] == token), 0)
        if start >= len(rows):
            return []
        size, again = self.cuts[self.pages % len(self.cuts)]
        self.pages += 1
        return rows[max(0, start - again) : start + size]

    def _fills(self) -> list[dict[str, Any]]:
        rows = []
        for n, (_, executions) in enumerate(self.orders):
            done = 0
            for k, (minute, qty) in enumerate(executions):
                done += qty
                rows.append((minute, n, k, qty, done))
        return [
            {"id": f"x{n}-{k}", "order_id": order_id(n), "activity_type": "FILL", "symbol": "AAPL", "side": "buy",
             "qty": decimal_text_e9(qty), "cum_qty": decimal_text_e9(done), "leaves_qty": "0", "price": "1",
             "type": "fill", "transaction_time": self._at(minute)}
            for minute, n, k, qty, done in sorted(rows)
            if minute <= self.minute
        ]  # fmt: skip

    def _orders(self) -> list[dict[str, Any]]:
        found = []
        for n, (submitted, executions) in sorted(enumerate(self.orders), key=lambda item: (item[1][0], item[0])):
            done = [(minute, qty) for minute, qty in executions if minute <= self.minute]
            if submitted <= self.minute:
                last = self._at(done[-1][0]) if done else None
                found.append(
                    {"id": order_id(n), "client_order_id": f"c{n}", "symbol": "AAPL", "side": "buy",
                     "status": "filled" if len(done) == len(executions) else "partially_filled" if done else "new",
                     "filled_qty": decimal_text_e9(sum(qty for _, qty in done)), "filled_avg_price": "1",
                     "submitted_at": self._at(submitted), "filled_at": last, "updated_at": last or self._at(submitted)}
                )  # fmt: skip
        return found

    def account(self) -> dict[str, Any]:
        return {"id": "account"}

    def positions(self) -> list[dict[str, Any]]:
        held = sum(qty for _, done in self.orders for minute, qty in done if minute <= self.minute)
        return [{"symbol": "AAPL", "qty": decimal_text_e9(held), "side": "long"}] if held else []

    def open_orders(self) -> list[dict[str, Any]]:
        self.calls += 1
        return [row for row in self._orders() if row["status"] != "filled"]

    def orders_page(self, *, after_order_id: str = "") -> list[dict[str, Any]]:
        return self._page(self._orders(), after_order_id)

    def fills(self, *, after: str = "", page_token: str = "", order_id: str = "") -> list[dict[str, Any]]:
        rows = [row for row in self._fills() if row["order_id"] == order_id or not order_id]
        return self._page([row for row in rows if row["transaction_time"][:19] + "Z" > after], page_token)

    def order(self, order_id: str) -> Found | Absent:
        self.calls += 1
        found = [row for row in self._orders() if row["id"] == order_id]
        return Found(found[0]) if found else Absent((order_id,))


def read(exchange: Exchange, store: MemoryEvidenceStore, overlap_minutes: int) -> AccountReading:
    policy = ReadingPolicy(overlap_ms=overlap_minutes * 60_000, orders_overlap_ms=overlap_minutes * 60_000)
    now_ms = ms(ago(days=2)) + exchange.minute * 60_000
    return Reading(exchange, store, policy, account_id="A1", since_ms=ms(ago(days=3)), now_ms=now_ms).run()


minutes = st.integers(0, 2000)
executions = st.lists(st.tuples(st.integers(1, 500), st.integers(1, 10**12)), min_size=1, max_size=5)
histories = st.lists(st.tuples(minutes, executions), max_size=12).map(
    lambda told: [
        (start, [(start + sum(gap for gap, _ in parts[: k + 1]), qty) for k, (_, qty) in enumerate(parts)])
        for start, parts in told
    ]
)
cuts = st.lists(st.tuples(st.integers(1, 7), st.integers(0, 4)), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(histories, cuts, st.lists(st.integers(0, 4600), max_size=3), st.integers(0, 3000))
def test_any_cut_into_pages_and_readings_brings_the_same_executions(
    history: list[tuple[int, list[tuple[int, int]]]],
    cuts: list[tuple[int, int]],
    stops: list[int],
    overlap: int,
) -> None:
    store = MemoryEvidenceStore()
    for minute in [*sorted(stops), 4600]:
        exchange = Exchange(history, cuts, minute)
        reading = read(exchange, store, overlap)
        assert reading.certificate.reasons == ()
        truth = {
            f"x{n}-{k}": qty
            for n, (_, parts) in enumerate(history)
            for k, (at, qty) in enumerate(parts)
            if at <= minute
        }
        got = reading.executions
        assert dict(zip(got["execution_id"], map(int, got["qty_e9"]), strict=True)) == truth
        assert len(got) == len(truth)
        by_order = reading.orders.set_index("order_id")["executed_e9"]
        for n, (submitted, parts) in enumerate(history):
            if submitted <= minute:
                assert int(by_order.get(order_id(n), 0)) == sum(qty for at, qty in parts if at <= minute)
    assert minute * 60_000 + ms(ago(days=2)) > ms(NOW)


@settings(max_examples=100, deadline=None)
@given(histories, cuts, st.data())
def test_an_execution_that_every_list_leaves_out_is_never_a_complete_reading(
    history: list[tuple[int, list[tuple[int, int]]]], cuts: list[tuple[int, int]], data: st.DataObject
) -> None:
    exchange = Exchange(history, cuts, 4600)
    rows = exchange._fills()
    if not rows:
        return
    hidden = data.draw(st.sets(st.sampled_from([row["id"] for row in rows]), min_size=1))
    exchange._fills = lambda: [row for row in rows if row["id"] not in hidden]  # type: ignore[method-assign]
    reading = read(exchange, MemoryEvidenceStore(), 60)
    assert not reading.certificate.complete
    short = {next(row["order_id"] for row in rows if row["id"] == name) for name in hidden}
    assert all(any(order in reason for reason in reading.certificate.reasons) for order in short)
