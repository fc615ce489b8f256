"""Many orders of one account at once: pages of orders first, then the orders that no page answered, one by one.

What belongs here: which pages are worth their request, and when asking on is of no use any more. What does not: requests
(``alpaca``), and which orders are asked for.

An order that is on a page is found: a page has the same records as a single look-up. One that is on no page is not absent: the
exchange lists by the time of submission, which need not be the time that the ledger knows, and pages are bounded. So absence
only ever comes from single look-ups that name the order.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.instants import iso_ms, parse_instant
from recon_pipeline.exchange.alpaca import ORDERS_PAGE, AlpacaClient
from recon_pipeline.exchange.gateway import (
    CredentialsError,
    DeadlineError,
    ExchangeError,
    Found,
    FoundOrders,
    LookupResult,
    RateLimitedError,
    Unknown,
    WantedOrder,
)
from recon_pipeline.exchange.lookups import ask, is_exchange_id

_LOG = logging.getLogger(__name__)
_USED_UP: Final = (DeadlineError, RateLimitedError)
_SAME_WINDOW_MS: Final = 30 * 60_000
"""Orders placed this close together are looked for on the same pages."""
_MARGIN_MS: Final = 2 * 60_000
"""How far the ledger's time of an order and the exchange's may be apart to be found on a page."""
_WORTH_A_PAGE: Final = 2
"""A page costs one request, like a single look-up."""
_IN_A_ROW: Final = 3
"""After so many orders in a row without an answer no more are asked for: each costs all the attempts of a request."""


class OrderSearch:
    """One search in one account, with one client, in one thread."""

    def __init__(self, client: AlpacaClient, orders: Sequence[WantedOrder], *, bulk_pages: int) -> None:
        self._client = client
        self._orders = orders
        self._pages_left = bulk_pages
        self._results: dict[int, LookupResult] = {}
        self._error = ""
        self._by_id: dict[str, list[int]] = {}
        self._by_client_id: dict[str, list[int]] = {}
        for at, order in enumerate(orders):
            self._by_id.setdefault(order.order_id, []).append(at)
            self._by_client_id.setdefault(order.order_id, []).append(at)
            # Where the key may be the exchange's id, another order under the client id would contradict it: the key is asked for.
            if order.client_order_id and not is_exchange_id(order.order_id):
                self._by_client_id.setdefault(order.client_order_id, []).append(at)

    def run(self) -> FoundOrders:
        """Ask, and say what it cost. Failures of the exchange are values."""
        try:
            self._read_pages()
        except (CredentialsError, *_USED_UP) as error:
            self._give_up(error)
        except ExchangeError as error:
            _LOG.warning("orders can't be read in pages, each is asked for by itself: %s", error)
        in_bulk = sum(isinstance(result, Found) for result in self._results.values())
        singly = self._ask_one_by_one()
        return FoundOrders(
            results=tuple(self._results[at] for at in range(len(self._orders))),
            api_calls=self._client.calls,
            rate_remaining=self._client.rate_remaining,
            in_bulk=in_bulk,
            singly=singly,
            error=self._error,
        )

    @property
    def _open(self) -> list[int]:
        """Positions of the orders that are not answered yet."""
        return [at for at in range(len(self._orders)) if at not in self._results]

    # -- pages

    def _read_pages(self) -> None:
        if len(self._open) >= _WORTH_A_PAGE:
            self._read_open_orders(max_pages=max(1, self._pages_left // 2))
        for begin, end in self._windows():
            self._read_window(begin, end)

    def _read_open_orders(self, *, max_pages: int) -> None:
        """Orders that wait rightly are on these pages, however long ago they were placed."""
        last = ""
        for _ in range(min(max_pages, self._pages_left)):
            page = self._page(status="open", after_order_id=last)
            if len(page) < ORDERS_PAGE or len(self._open) < _WORTH_A_PAGE:
                return
            last = str(page[-1]["id"])

    def _windows(self) -> Iterator[tuple[int, int]]:
        """Spans of time in which several unanswered orders were placed, those with the most orders first."""
        placed = sorted(at for at in (self._orders[i].placed_at_ms for i in self._open) if at != NO_TIME)
        spans: list[list[int]] = []
        for moment in placed:
            if spans and moment - spans[-1][-1] <= _SAME_WINDOW_MS:
                spans[-1].append(moment)
            else:
                spans.append([moment])
        for span in sorted(spans, key=lambda moments: (-len(moments), moments[0])):
            if len(span) >= _WORTH_A_PAGE:
                yield span[0] - _MARGIN_MS, span[-1] + _MARGIN_MS

    def _read_window(self, begin_ms: int, end_ms: int) -> None:
        last = ""
        while self._pages_left and self._unanswered_between(begin_ms, end_ms) >= _WORTH_A_PAGE:
            # The exchange takes either a span of time or a place to go on from, not both.
            page = self._page(after_order_id=last) if last else self._page(after=iso_ms(begin_ms), until=iso_ms(end_ms))
            if len(page) < ORDERS_PAGE or _submitted_ms(page[-1]) > end_ms:
                return
            last = str(page[-1]["id"])

    def _unanswered_between(self, begin_ms: int, end_ms: int) -> int:
        return sum(begin_ms <= self._orders[at].placed_at_ms <= end_ms for at in self._open)

    def _page(
        self, *, status: str = "all", after_order_id: str = "", after: str = "", until: str = ""
    ) -> list[Mapping[str, Any]]:
        self._pages_left -= 1
        page = self._client.orders_page(status=status, after_order_id=after_order_id, after=after, until=until)
        for order in page:
            found = Found(order)
            client_id = order.get("client_order_id")
            named = self._by_client_id.get(client_id, []) if isinstance(client_id, str) else []
            for at in (*self._by_id.get(order["id"], ()), *named):
                self._results[at] = found
        return page

    # -- single orders

    def _ask_one_by_one(self) -> int:
        """Ask for what is left; return how many orders that were."""
        asked: dict[tuple[str, str], LookupResult] = {}
        failures = 0
        for at in self._open:
            order = self._orders[at]
            key = (order.order_id.strip(), order.client_order_id.strip())
            if key not in asked:
                try:
                    asked[key] = ask(self._client, *key)
                    failures = 0
                except (CredentialsError, *_USED_UP) as error:
                    self._give_up(error)
                    break
                except ExchangeError as error:
                    asked[key] = Unknown(str(error), transient=error.transient)
                    failures += error.transient
                    if failures == _IN_A_ROW:
                        self._results[at] = asked[key]
                        self._give_up(error)
                        break
            self._results[at] = asked[key]
        return len(asked)

    def _give_up(self, error: ExchangeError) -> None:
        """Refused keys are the answer to every order that is left; whatever passes leaves them to the next run."""
        self._error = str(error)
        for at in self._open:
            self._results[at] = Unknown(self._error, transient=error.transient, asked=not error.transient)


def _submitted_ms(order: Mapping[str, Any]) -> int:
    """When the order was submitted; an instant that can't be read ends nothing."""
    moment = parse_instant(order.get("submitted_at"))
    return NO_TIME if moment is None else moment
