"""One account, read and proven complete: positions, executions with their orders, positions again.

What belongs here: which requests make up a reading, and the proof that nothing is missing. What does not: HTTP
(``alpaca``), what a single record says (``executions``), and what the ledger makes of it (the domain).

How the proof goes. A page that lacks rows can't be told from the last one, so no list proves itself:

1. A list is followed until the exchange answers an empty page behind the last id.
2. Orders are swept from where the last reading left off, and every order that was not finished then is read again. So
   the executed quantity that each order claims is current, whatever the list of executions says.
3. For every order executed in the window: the sum of its executions = the cumulative quantity of its last one = the
   order's executed quantity. Where not, its executions are asked for by order id (which also completes an old order
   that was partly executed before the window), and the order by id. What still does not agree makes the reading
   incomplete, by name.
4. Positions are read before and after; they must agree.

What was read is kept as facts by id; how far a stream was read is noted only as far as it was proven.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.quantities import decimal_text_e9, parse_decimal
from recon_pipeline.domain.readings import exchange_orders_frame, position_quantity, positions_frame
from recon_pipeline.domain.symbols import symbol_token
from recon_pipeline.exchange.collected import Collected
from recon_pipeline.exchange.evidence_store import EvidenceStore
from recon_pipeline.exchange.executions import (
    Execution,
    Raw,
    UnreadableRecordError,
    executions_frame,
    instant,
    milliseconds,
    order_row,
    submitted_at,
    with_legs,
)
from recon_pipeline.exchange.gateway import (
    Absent,
    AccountMismatchError,
    AccountReading,
    Certificate,
    ExchangeError,
    Found,
    NotFoundError,
    RequestError,
    UnreadableAnswerError,
)

_DAY_MS: Final = 86_400_000
_SAME_PAGE_LIMIT: Final = 3
_LONGEST_CHAIN: Final = 25
_REASONS_SHOWN: Final = 20


class AccountClient(Protocol):
    """The requests that a reading is made of; see :class:`~recon_pipeline.exchange.alpaca.AlpacaClient`."""

    calls: int

    @property
    def rate_remaining(self) -> int | None:
        """What is left of this minute's requests."""
        ...

    def account(self) -> Raw:
        """Return the account's own record."""
        ...

    def positions(self) -> list[Raw]:
        """Return all positions."""
        ...

    def open_orders(self) -> list[Raw]:
        """Return all open orders."""
        ...

    def orders_page(self, *, after_order_id: str = "") -> list[Raw]:
        """Return orders of any status, oldest first, behind the given one."""
        ...

    def fills(self, *, after: str = "", page_token: str = "", order_id: str = "") -> list[Raw]:
        """Return executions, oldest first, behind the token."""
        ...

    def order(self, order_id: str) -> Found | Absent:
        """Return one order."""
        ...


@dataclass(frozen=True)
class ReadingPolicy:
    """How far back a reading overlaps the last one, and how many requests it may cost."""

    overlap_ms: int = 3 * _DAY_MS
    """Executions posted late, or corrected, within this time are seen again."""
    orders_overlap_ms: int = 3_600_000
    max_fill_pages: int = 400
    max_order_pages: int = 400
    max_single_requests: int = 20
    """Look-ups (one request) and second readings (three) of single orders. The next reading goes on from what they bring."""
    max_link_requests: int = 20
    """Look-ups of orders that are only known as replaced by, or replacing, another."""


class Reading:
    """One reading of one account. Used once: :meth:`run`."""

    def __init__(
        self,
        client: AccountClient,
        store: EvidenceStore,
        policy: ReadingPolicy,
        *,
        account_id: str,
        since_ms: int,
        now_ms: int,
        claim: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._store = store
        self._policy = policy
        self._account_id = account_id
        self._since_ms = since_ms
        self._now_ms = now_ms
        self._claim = claim
        self._known = Collected(since_ms)
        self._recalled: set[str] = set()
        self._flaws: dict[str, None] = {}
        self._positions: list[Raw] = []
        self._positions_agree = False
        self._positions_doubtful = False
        self._exchange_account = ""
        self._fill_token = ""
        self._fills_from_ms = since_ms
        self._list_cut = False
        self._order_cursor = ""
        self._swept: list[tuple[str, int | None]] = []
        self._pages = 0
        self._singles = 0
        self._links = 0

    def run(self) -> AccountReading:
        """Read, prove, keep. A failure of the exchange ends as a value."""
        error = ""
        try:
            account = self._check_account()
            self._recall()
            self._read(account)
        except ExchangeError as failure:
            error = str(failure)
        self._keep(proven=not error and not self._flaws and not self._known.unproven)
        return self._result(error)

    # -- what is known from before

    def _check_account(self) -> Raw:
        """Read the account, and make sure that it is the one that the kept evidence is about."""
        account = self._client.account()
        self._exchange_account = str(account["id"])
        known = self._store.watermark(self._account_id, "account")
        if known is not None and known["last_id"] != self._exchange_account:
            raise AccountMismatchError(
                f"the keys of account {self._account_id!r} open exchange account {self._exchange_account}, "
                f"but its evidence was read from {known['last_id']}"
            )
        self._claim(self._exchange_account)
        return account

    def _recall(self) -> None:
        """Take over what earlier readings kept, and where they left off."""
        since = instant(self._since_ms)
        self._known.recall_orders(self._store.exchange_orders_since(self._account_id, since))
        self._known.recall_orders(self._store.exchange_orders_unfinished(self._account_id))
        self._known.recall_executions(self._store.executions_since(self._account_id, since))
        self._recall_executions_of(self._known.orders)
        fills = self._store.watermark(self._account_id, "fills")
        if fills is not None and milliseconds(fills["covered_from"]) <= self._since_ms:
            until = min(milliseconds(fills["covered_until"]), self._now_ms)  # a clock set back reads more, not less
            self._fills_from_ms = max(self._since_ms, until - self._policy.overlap_ms)
        orders = self._store.watermark(self._account_id, "orders")
        if orders is not None and milliseconds(orders["covered_from"]) <= self._since_ms:
            self._order_cursor = orders["last_id"]

    def _recall_executions_of(self, order_ids: Iterable[str]) -> None:
        wanted = sorted(set(order_ids) - self._recalled)
        if wanted:
            self._recalled.update(wanted)
            self._known.recall_executions(self._store.executions_of_orders(self._account_id, wanted))

    # -- reading

    def _read(self, account: Raw) -> None:
        before = self._positions_first(account)
        for first in (True, False):
            self._sweep_orders()
            if first:
                self._refresh_unfinished()
            self._list_fills(first=first)
            self._join()
            self._prove()
            after = self._read_positions()
            moved = _differences(before, after)
            if not moved:
                self._positions_agree = True
                if not first:  # the list that agrees is not the one that the account's worth was compared with
                    self._doubt_missing_sides(self._client.account(), after)
                return
            before = after
        for token, was, became in moved:
            self._flaw(
                f"the position in {token} changed while the account was read, twice: {was} before, {became} after"
            )

    def _positions_first(self, account: Raw) -> dict[str, Raw]:
        """Read positions; where the account reports value on a side that has no position, both once more."""
        positions = self._read_positions()
        if _sides_missing(account, positions):
            account, positions = self._client.account(), self._read_positions()
            self._doubt_missing_sides(account, positions)
        return positions

    def _doubt_missing_sides(self, account: Raw, positions: Mapping[str, Raw]) -> None:
        for side, value in _sides_missing(account, positions):
            self._doubt_positions(
                f"the account has {side} positions worth {value}, but none is in the list of positions"
            )

    def _read_positions(self) -> dict[str, Raw]:
        found: dict[str, Raw] = {}
        for raw in self._client.positions():
            token = symbol_token(str(raw.get("symbol") or ""))
            if not token or raw.get("side") not in ("long", "short"):
                raise UnreadableAnswerError(f"a position without a {'side' if token else 'symbol'} was listed")
            if token in found and _quantity_text(found[token]) != _quantity_text(raw):
                self._doubt_positions(f"the position in {token} was listed twice, with different quantities")
            found[token] = raw
        self._positions = list(found.values())
        return found

    def _page_through(self, fetch: Callable[[str], list[Raw]], token: str, cap: int, what: str) -> Iterator[list[Raw]]:
        """Yield pages until the exchange answers an empty one. A short page proves nothing: it may be cut off."""
        seen: set[str] = set()
        repeated = 0
        for _ in range(cap):
            page = fetch(token)
            self._pages += 1
            if not page:
                return
            ids = {str(raw["id"]) for raw in page}
            repeated = repeated + 1 if ids <= seen else 0
            if repeated == _SAME_PAGE_LIMIT:
                self._flaw(f"{what}: the exchange sends the same page over and over")
                return
            seen |= ids
            yield page
            token = str(page[-1]["id"])
        self._flaw(f"{what}: the limit of {cap} pages was reached before the end of the list")

    def _sweep_orders(self) -> None:
        """Read every order submitted since the last reading's cursor; all orders where there is none."""

        def fetch(token: str) -> list[Raw]:
            try:
                return self._client.orders_page(after_order_id=token)
            except (NotFoundError, RequestError):
                if self._swept or not token:
                    raise
                return self._client.orders_page()  # the exchange does not know the cursor any more: from the start

        pages = self._page_through(fetch, self._order_cursor, self._policy.max_order_pages, "the list of orders")
        for page in pages:
            for raw in page:
                self._swept.append((raw["id"], submitted_at(raw)))
                for order in with_legs(raw):
                    self._known.take_order(order, only_if_recent=True)
            self._order_cursor = str(page[-1]["id"])

    def _refresh_unfinished(self) -> None:
        """Read again what was not finished when it was last read."""
        if not self._known.stale_orders():
            return
        for raw in self._client.open_orders():
            for order in with_legs(raw):
                self._known.take_order(order)
        for order_id in self._known.stale_orders():
            if self._single(f"order {order_id} was not finished when last read") and not self._look_up(order_id):
                self._flaw(f"order {order_id} was open before, but the exchange says now that it does not exist")

    def _list_fills(self, *, first: bool) -> None:
        """Read the executions of the window, or in the second try those behind the last one read."""
        # `after` is exclusive, has whole seconds, and means the time of posting, which is not before the execution.
        after = iso_ms(self._fills_from_ms - 1000)[:19] + "Z"
        flaws = len(self._flaws)
        pages = self._page_through(
            lambda token: self._client.fills(after=after, page_token=token),
            self._fill_token,
            self._policy.max_fill_pages,
            "the list of executions",
        )
        for page in pages:
            for raw in page:
                self._take_execution(raw)
            self._fill_token = str(page[-1]["id"])
        self._list_cut = len(self._flaws) > flaws
        if first:
            self._known.suspect_unlisted(from_ms=self._fills_from_ms)

    def _take_execution(self, raw: Raw) -> None:
        try:
            execution = Execution.parse(raw)
        except UnreadableRecordError as error:
            self._flaw(f"{error}")
            return
        if not self._known.take_execution(execution):
            self._flaw(f"execution {execution.execution_id} was sent with other contents before: corrected or busted?")

    # -- joining

    def _join(self) -> None:
        """Bring in the orders that executions name, and the orders that those replace or are replaced by."""
        for order_id in self._missing(self._known.executed_recently()):
            if self._single(f"order {order_id} has executions but was not listed") and not self._look_up(order_id):
                text = f"order {order_id} has executions, but the exchange says that it does not exist"
                self._known.unproven[order_id] = text
        tried: set[str] = set()
        for _ in range(_LONGEST_CHAIN):
            ahead = [link for link in self._missing(self._known.linked(self._known.in_scope())) if link not in tried]
            if not ahead:
                break
            for link in ahead:
                tried.add(link)
                if self._links < self._policy.max_link_requests:  # a missing link weakens attribution, not the proof
                    self._links += 1
                    self._look_up(link)
        self._recall_executions_of(self._known.in_scope())

    def _missing(self, order_ids: set[str]) -> list[str]:
        """Return those of the orders that neither this reading nor the store knows."""
        missing = sorted(order_ids - self._known.orders.keys())
        if missing:
            self._known.recall_orders(self._store.exchange_orders_by_id(self._account_id, missing))
        return [order_id for order_id in missing if order_id not in self._known.orders]

    def _look_up(self, order_id: str) -> bool:
        """Read one order. False where the exchange says that it does not exist."""
        found = self._client.order(order_id)
        if isinstance(found, Found):
            self._known.take_order(found.raw)
        return isinstance(found, Found)

    def _single(self, why: str) -> bool:
        """Count one single request; where they are used up, say what was not read."""
        if self._singles >= self._policy.max_single_requests:
            limit = self._policy.max_single_requests
            self._flaw(f"{why}, and was not read: the limit of {limit} single requests is used up")
            return False
        self._singles += 1
        return True

    # -- proving

    def _prove(self) -> None:
        for order_id in self._known.in_scope():
            problem = self._known.disagreement(order_id)
            if order_id in self._known.suspects:
                problem = problem or "an execution or a state of it that was read before was not sent now"
            if not problem:
                self._known.unproven.pop(order_id, None)
            elif not self._list_cut and self._single(f"order {order_id} does not add up"):
                self._read_again(order_id)
            else:
                self._known.unproven[order_id] = f"order {order_id}: {problem}"
        self._known.suspects.clear()

    def _read_again(self, order_id: str) -> None:
        """Read all executions of an order, then the order; what disagrees now stays unproven."""
        before = set(self._known.executions.get(order_id, {}))
        listed: set[str] = set()
        pages = self._page_through(
            lambda token: self._client.fills(page_token=token, order_id=order_id),
            "",
            self._policy.max_fill_pages,
            f"the executions of order {order_id}",
        )
        for page in pages:
            for raw in page:
                self._take_execution(raw)
                listed.add(str(raw["id"]))
        self._known.suspects.discard(order_id)
        problem = "" if self._look_up(order_id) else "the exchange says that it does not exist"
        gone = sorted(before - listed)
        if order_id in self._known.suspects:
            problem = (
                "it was read with more executed, as finished, or with more fields before: a stale or garbled answer"
            )
        elif gone:
            problem = f"execution {gone[0]} was listed before and is not now: a stale answer, or a busted trade"
        problem = problem or self._known.disagreement(order_id)
        if problem:
            symbol = self._known.orders[order_id].get("symbol")
            self._known.unproven[order_id] = f"order {order_id} ({symbol}): {problem}, after a second reading"
        else:
            self._known.unproven.pop(order_id, None)

    def _flaw(self, text: str) -> None:
        self._flaws[text] = None

    def _doubt_positions(self, text: str) -> None:
        self._positions_doubtful = True
        self._flaw(text)

    # -- keeping and handing over

    def _keep(self, *, proven: bool) -> None:
        """Keep what was read, as facts by id; an unproven order is not kept and is read again next time."""
        known = self._known
        executions = [e.row(self._account_id) for e in known.fresh_executions.values()]
        if executions:
            self._store.upsert_executions(executions)
        since, until = instant(self._since_ms), instant(self._now_ms)
        fresh = sorted(known.fresh_orders - known.unproven.keys())
        if fresh:
            rows = [order_row(known.orders[order_id], self._account_id, read_at=until) for order_id in fresh]
            self._store.upsert_exchange_orders(rows)
        cursor = self._next_cursor()
        marks = {"orders": (cursor, since)} if cursor else {}
        if proven:
            marks |= {"account": (self._exchange_account, since)}
            marks |= {"fills": (self._fill_token, instant(self._fills_from_ms))}
        for stream, (last_id, start) in marks.items():
            self._store.set_watermark(
                self._account_id, stream, last_id=last_id, covered_from=start, covered_until=until
            )

    def _next_cursor(self) -> str:
        """Return the last swept order before the first unproven one and before the overlap."""
        cursor = ""
        for order_id, submitted in self._swept:
            if order_id in self._known.unproven:
                break
            if submitted is not None and submitted <= self._now_ms - self._policy.orders_overlap_ms:
                cursor = order_id
        return cursor

    def _result(self, error: str) -> AccountReading:
        known = self._known
        scope = set(known.in_scope())
        scope |= known.linked(scope) & known.orders.keys()
        orders = [known.joined(order_id) for order_id in sorted(scope)]
        executions = [
            execution
            for order_id, all_of in known.executions.items()
            for execution in all_of.values()
            if order_id in scope or execution.executed_at_ms >= self._since_ms
        ]
        reasons = [error] if error else []
        reasons += [*self._flaws, *(text for _, text in sorted(known.unproven.items()))]
        if len(reasons) > _REASONS_SHOWN:
            reasons = [*reasons[:_REASONS_SHOWN], f"and {len(reasons) - _REASONS_SHOWN} more reasons"]
        return AccountReading(
            account_id=self._account_id,
            orders=exchange_orders_frame(orders, account_id=self._account_id),
            executions=executions_frame(executions, self._account_id),
            positions=positions_frame(self._positions, account_id=self._account_id),
            positions_known=self._positions_agree and not self._positions_doubtful,
            certificate=Certificate(
                complete=not reasons,
                reasons=tuple(reasons),
                window_start_ms=self._since_ms,
                window_end_ms=self._now_ms,
                pages=self._pages,
                calls=self._client.calls,
                rate_remaining=self._client.rate_remaining,
            ),
            as_of_ms=self._now_ms,
            error=error,
            raw_orders=tuple(orders),
            raw_positions=tuple(self._positions),
        )


def _quantity_text(raw: Raw | None) -> str:
    if raw is None:
        return "0"
    units = position_quantity(raw)
    return f"unreadable ({raw.get('qty')!s:.40})" if units is None else decimal_text_e9(units)


def _differences(before: Mapping[str, Raw], after: Mapping[str, Raw]) -> list[tuple[str, str, str]]:
    pairs = ((t, _quantity_text(before.get(t)), _quantity_text(after.get(t))) for t in sorted({*before, *after}))
    return [(token, was, became) for token, was, became in pairs if was != became]


def _sides_missing(account: Raw, positions: Mapping[str, Raw]) -> list[tuple[str, str]]:
    """Sides on which the account reports more than a dollar and no position is listed (or one that can't be read)."""
    held = [position_quantity(raw) for raw in positions.values()]
    found = {"long": any(q is None or q > 0 for q in held), "short": any(q is None or q < 0 for q in held)}
    worth = {side: parse_decimal(account.get(f"{side}_market_value")) for side in found}
    return [(side, str(value)) for side, value in worth.items() if value and abs(value) > 1 and not found[side]]
