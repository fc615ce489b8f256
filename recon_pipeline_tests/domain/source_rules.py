"""What the source system would decide on a book: an oracle, stated independently of the engine and kept exact.

What belongs here: the rules of the exit-backfill service that this project replaces, faults included, over the same
books that ``recon evaluate`` reads. What does not: anything from ``recon_pipeline`` (sharing code would share
mistakes), and any rule that this project changed.

It serves two purposes. Where no deliberate difference applies, the engine has to give the same decisions, reasons,
quantities, prices, ids and counts to the last digit (``test_same_as_the_source.py``). Where one does apply, it has to
give something else (``scenarios/``), which shows that the difference is real and not a story.

Binary floats of the source are Decimals here, so books stay within eight decimals, where both agree.

The generator of equal books stays inside these borders, each of them a deliberate difference; the numbers are those of
the scenarios ``defect_<number>_...`` that ``docs/deviations.md`` names:

* every execution is unrepresented in the ledger (1, 6), and no backfill id exists yet (12, 13);
* positions are known and flat, or the position gate is ``evidence`` (2), and positions are not negative (24);
* an exit is newer than every row of its trade less the grace, or older than the first entry less the grace (3), and
  the grace is not 0;
* orders carry a complete execution: ``filled_qty``, ``filled_avg_price``, ``filled_at``, ``side``, ``symbol``, a status
  of filled or partially filled, one listing only (5, 8, 9, 10, 20, 22), and are within the look-back (28);
* the executions of a trade without the oldest one sum to less than its open quantity (17);
* attribution is strong, by one key, unambiguous, never by an ``-entry`` or a numbered ``-exit-2`` client id (19, 24);
* rows name side, action and time, ``qty`` and ``quantity`` agree, exits follow entries (20, 21), and no two trades begin
  in the same millisecond (the source leaves ties to the order of its input, the engine to nothing but the content);
* dust has an execution, is worth less than the money cap, and the crypto fee allowance is off (7, 23);
* pending rows name their trade (29), settings are numbers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

NOTHING_LEFT = Decimal("0.00000001")
EIGHT_PLACES = Decimal("0.00000001")
FILLED_STATES = ("filled", "partially_filled")
ENTRY_WORDS = {"entry", "open", "buy_to_open", "sell_to_open"}
EXIT_WORDS = {"exit", "close", "buy_to_close", "sell_to_close"}


class SourceError(Exception):
    """The source would have thrown."""


# --- how the source reads values -----------------------------------------------------------------------------------


def number(value: object) -> Decimal:
    """A quantity or price; whatever is no finite number counts as 0."""
    if isinstance(value, bool):
        return Decimal(int(value))
    if value is None or isinstance(value, dict | list):
        return Decimal(0)
    try:
        parsed = Decimal(str(value).strip() or "0")
    except InvalidOperation:
        return Decimal(0)
    return parsed if parsed.is_finite() else Decimal(0)


def eight(value: Decimal) -> Decimal:
    """Rounded to eight decimals, halves up."""
    return value.quantize(EIGHT_PLACES, rounding=ROUND_HALF_UP)


def plain(value: Decimal) -> str:
    """The shortest spelling without an exponent."""
    text = format(value, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def text(value: object) -> str:
    return "" if value is None or value is False or value == 0 else str(value).strip()


def milliseconds(value: object, missing: int) -> int:
    """Epoch seconds or milliseconds, as a number or text, or ISO 8601; `missing` for anything else."""
    if isinstance(value, bool) or value is None:
        return missing
    if isinstance(value, int | float | Decimal):
        if value > 1_000_000_000_000:
            return int(value)
        return int(Decimal(str(value)) * 1000) if value > 0 else missing
    if isinstance(value, str):
        if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
            return milliseconds(Decimal(value.strip()), missing)
        found = re.fullmatch(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:?\d\d)?", value.strip())
        if found:
            day, clock, fraction, zone = found.groups()
            try:
                moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in (None, 'Z') else zone}")
            except ValueError:
                return missing
            parsed = int(moment.timestamp()) * 1000 + int(((fraction or "") + "000")[:3])
            return parsed if parsed > 0 else missing
    return missing


def iso(instant_ms: int) -> str:
    moment = datetime.fromtimestamp(instant_ms // 1000, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{instant_ms % 1000:03d}Z"


def token(symbol: object) -> str:
    return re.sub(r"[^A-Z0-9]", "", text(symbol).upper())


def side_of(value: object) -> str:
    """BUY or SELL; a missing side is a BUY to the source (defect 20)."""
    word = (text(value) or "BUY").lower()
    if word in ("buy", "long"):
        return "BUY"
    if word in ("sell", "short"):
        return "SELL"
    raise SourceError(f"side {value!r}")


def action_of(value: object) -> str:
    word = text(value).lower()
    return "ENTRY" if word in ENTRY_WORDS else "EXIT" if word in EXIT_WORDS else ""


def status_of(value: object) -> str:
    word = re.sub(r"[- ]", "_", text(value).lower())
    return "canceled" if word == "cancelled" else word


def first_positive(record: Mapping[str, object], names: Iterable[str]) -> Decimal:
    return next((value for name in names if (value := number(record.get(name))) > 0), Decimal(0))


# --- attribution keys ----------------------------------------------------------------------------------------------


def tag_token(identifier: str) -> str:
    return re.sub(r"[^a-z0-9]", "", identifier.lower())


def tag_parts(tag: str) -> tuple[str, str] | None:
    """Profile and trade token of a tag of ours, None for any other tag."""
    found = re.fullmatch(r"bytelyst:([a-z0-9]+)(?::([a-z0-9]+))?", tag.strip().lower())
    return (found.group(1), found.group(2) or "") if found else None


def trade_in_client_id(profile_id: str, client_order_id: str) -> str:
    """The trade that a client order id names: the id of the whole rest where no suffix is known."""
    prefix = f"bytelyst-{profile_id}-".lower()
    if not client_order_id.lower().startswith(prefix):
        return ""
    rest = client_order_id[len(prefix) :].strip()
    for suffix in ("-exit", "-entry"):
        if rest.lower().endswith(suffix):
            return rest[: -len(suffix)].strip()
    return rest


# --- slices --------------------------------------------------------------------------------------------------------


@dataclass
class Trade:
    """A trade with what it has open."""

    trade_id: str
    symbol: str
    user_id: str
    entry_side: str
    entered: Decimal = Decimal(0)
    exited: Decimal = Decimal(0)
    newest_ms: int = 0

    @property
    def open(self) -> Decimal:
        return eight(self.entered - self.exited)

    @property
    def exit_side(self) -> str:
        return "SELL" if self.entry_side == "BUY" else "BUY"


def open_trades(rows: Iterable[Mapping[str, object]], now_ms: int) -> list[Trade]:
    """The trades with something open, in the order of their first rows."""
    trades: dict[str, Trade] = {}
    for row in sorted(rows, key=lambda r: milliseconds(_else(r.get("timestamp"), r.get("created_at")), 0)):
        trade_id, symbol = text(row.get("trade_id")), text(row.get("symbol"))
        quantity = number(_else(row.get("qty"), row.get("quantity")))
        if not trade_id or not symbol or quantity <= NOTHING_LEFT:
            continue
        side = side_of(row.get("side"))
        at_ms = milliseconds(_else(row.get("timestamp"), row.get("created_at")), now_ms)
        trade = trades.setdefault(trade_id, Trade(trade_id, symbol, text(row.get("user_id")), side, newest_ms=at_ms))
        if (action_of(row.get("action")) or ("ENTRY" if side == trade.entry_side else "EXIT")) == "ENTRY":
            if trade.entered <= NOTHING_LEFT:
                trade.entry_side = side
            trade.entered += quantity
        else:
            trade.exited += quantity
        trade.newest_ms = max(trade.newest_ms, at_ms)
        trade.user_id = trade.user_id or text(row.get("user_id"))
    return [trade for trade in trades.values() if trade.open > NOTHING_LEFT]


def _else(value: object, other: object) -> object:
    return other if value is None else value


# --- evidence ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fill:
    """An exchange order taken as an execution."""

    order_id: str
    client_order_id: str
    trade_hint: str
    tag: str
    side: str
    quantity: Decimal
    price: Decimal
    at_ms: int
    matched_by: str = ""


def fills_of(symbol_token: str, orders: Iterable[Mapping[str, object]] | None, now_ms: int) -> list[Fill]:
    """Orders that are filled by their status, oldest first."""
    fills = []
    for order in orders or []:
        quantity = first_positive(
            order, ("filled_qty", "filledQty", "filled_quantity", "filled", "qty", "amount", "size")
        )
        order_id = text(order.get("id")) or text(order.get("order_id"))
        if status_of(order.get("status")) not in FILLED_STATES or quantity <= NOTHING_LEFT or not order_id:
            continue
        if token(order.get("symbol")) not in ("", symbol_token):
            continue
        times = ("filled_at", "filledAt", "updated_at", "closed_at", "timestamp", "submitted_at")
        fills.append(
            Fill(
                order_id=order_id,
                client_order_id=text(order.get("client_order_id")) or text(order.get("clientOrderId")),
                trade_hint=text(order.get("trade_id")) or text(order.get("tradeId")),
                tag=text(order.get("subtag")) or text(order.get("sub_tag")) or text(order.get("subTag")),
                side=side_of(order.get("side")),
                quantity=quantity,
                price=first_positive(order, ("filled_avg_price", "avg_price", "price", "limit_price")),
                at_ms=next((at for name in times if (at := milliseconds(order.get(name), 0)) > 0), now_ms),
            )
        )
    return sorted(fills, key=lambda fill: fill.at_ms)


def listed(orders: object, since_ms: int) -> list[Mapping[str, object]]:
    """What the exchange returns to the source: orders by submission time; a failed read is an empty list."""
    found = [order for order in orders if isinstance(order, dict)] if isinstance(orders, list) else []
    return [order for order in found if milliseconds(order.get("submitted_at"), since_ms) >= since_ms]


def usable(fill: Fill, profile_id: str, *, strong_only: bool) -> bool:
    """Whether the fill may be looked at at all, by its tag and its other keys."""
    named = bool(fill.trade_hint or trade_in_client_id(profile_id, fill.client_order_id))
    if not fill.tag:
        return named or not strong_only
    parts = tag_parts(fill.tag)
    if parts is None:
        return named or not strong_only
    return parts[0] == tag_token(profile_id)


def assign(
    trades: list[Trade], fills: list[Fill], profile_id: str, settings: Settings
) -> tuple[dict[str, list[Fill]], list[Fill]]:
    """Hand whole fills to trades, method by method, newest first; what is left over comes back too."""
    by_id = {trade.trade_id: trade for trade in trades}
    wanted = {trade.trade_id: trade.open for trade in trades}
    given: dict[str, list[Fill]] = {trade.trade_id: [] for trade in trades}

    def fits(trade: Trade | None, fill: Fill) -> bool:
        if trade is None or fill.side != trade.exit_side or wanted[trade.trade_id] <= NOTHING_LEFT:
            return False
        return trade.newest_ms <= 0 or fill.at_ms + settings.grace_ms >= trade.newest_ms

    def by_trade_id(fill: Fill) -> list[Trade | None]:
        return [by_id.get(fill.trade_hint)]

    def by_tag(fill: Fill) -> list[Trade | None]:
        parts = tag_parts(fill.tag)
        if parts is None or parts[0] != tag_token(profile_id) or not parts[1]:
            return []
        return [trade for trade in trades if tag_token(trade.trade_id) == parts[1]]

    def by_client_id(fill: Fill) -> list[Trade | None]:
        return [by_id.get(trade_in_client_id(profile_id, fill.client_order_id))]

    def by_quantity(fill: Fill) -> list[Trade | None]:
        return [
            trade
            for trade in trades
            if fits(trade, fill)
            and abs(wanted[trade.trade_id] - fill.quantity) <= settings.dust(wanted[trade.trade_id])
        ]

    methods = [("trade_id", by_trade_id), ("sub_tag", by_tag), ("client_order_id", by_client_id)]
    if settings.heuristics:
        methods.append(("qty_unique", by_quantity))
        if len(trades) == 1:
            methods.append(("single_open_trade", lambda _fill: [trades[0]]))
    left = list(fills)
    for name, candidates_of in methods:
        for fill in reversed(list(left)):
            candidates = candidates_of(fill)
            if len(candidates) != 1 or not fits(candidates[0], fill):
                continue
            trade = candidates[0]
            assert trade is not None
            given[trade.trade_id].append(replace(fill, matched_by=name))
            wanted[trade.trade_id] = max(Decimal(0), wanted[trade.trade_id] - fill.quantity)
            left.remove(fill)
    return given, left


# --- settings and the decision -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """The source's settings with its own defaults."""

    enabled: bool = False
    require_pause: bool = True
    allowlist: frozenset[str] = frozenset()
    strong_only: bool = True
    heuristics: bool = False
    grace_ms: int = 300_000
    dust_abs: Decimal = Decimal("0.001")
    dust_rel: Decimal = Decimal("0.002")
    lookback_ms: int = 72 * 3_600_000

    @classmethod
    def read(cls, config: Mapping[str, object]) -> Settings:
        def flag(name: str, *, default: bool) -> bool:
            value = config.get(name, default)
            return value if isinstance(value, bool) else str(value).strip().lower() in ("true", "1", "yes", "on")

        allowed = config.get("RECON_EXIT_BACKFILL_PROFILE_ALLOWLIST") or []
        names = allowed.split(",") if isinstance(allowed, str) else allowed if isinstance(allowed, list) else []
        minutes = number(config.get("RECON_EXIT_BACKFILL_FILL_AFTER_TRADE_GRACE_MINUTES", 5)) or Decimal(5)
        return cls(
            enabled=flag("ENABLE_RECON_EXIT_BACKFILL", default=False),
            require_pause=flag("RECON_EXIT_BACKFILL_REQUIRE_PAUSE", default=True),
            allowlist=frozenset(name for raw in names if (name := text(raw))),
            strong_only=flag("RECON_EXIT_BACKFILL_REQUIRE_STRONG_ATTRIBUTION", default=True),
            heuristics=flag("RECON_EXIT_BACKFILL_ALLOW_HEURISTIC_MATCH", default=False),
            grace_ms=max(0, int(minutes)) * 60_000,
            dust_abs=max(Decimal(0), number(config.get("RECON_EXIT_BACKFILL_DUST_ABS_QTY", "0.001"))),
            dust_rel=max(Decimal(0), number(config.get("RECON_EXIT_BACKFILL_DUST_REL_PCT", "0.002"))),
            lookback_ms=int(number(config.get("RECON_EXIT_BACKFILL_LOOKBACK_HOURS", 72)) * 3_600_000),
        )

    def dust(self, quantity: Decimal) -> Decimal:
        return max(self.dust_abs, self.dust_rel * max(quantity, Decimal(0)))


@dataclass
class Verdict:
    """What the source would have written and reported."""

    attempted: bool
    skipped_reason: str | None = None
    open_trade_candidates: int = 0
    proposed: list[dict[str, object]] = field(default_factory=list)
    audit_rows: list[dict[str, object]] = field(default_factory=list)
    no_go: list[dict[str, object]] = field(default_factory=list)
    advisory: list[dict[str, object]] = field(default_factory=list)
    inserted: list[dict[str, object]] = field(default_factory=list)

    @property
    def no_go_reason_counts(self) -> dict[str, int]:
        reasons = [str(row["reason"]) for row in self.no_go]
        return {reason: reasons.count(reason) for reason in reasons}

    def written(self) -> dict[str, Decimal]:
        """Quantity per trade that an apply of this verdict would insert."""
        totals: dict[str, Decimal] = {}
        for row in self.inserted:
            trade_id = str(row["trade_id"])
            totals[trade_id] = totals.get(trade_id, Decimal(0)) + Decimal(str(row["qty"]))
        return totals


def backfill_id(profile_id: str, trade_id: str, exchange_order_id: str, at_ms: int) -> str:
    logical = f"{profile_id}:{trade_id}:{exchange_order_id}:{iso(at_ms)}"
    return "BFILL-" + hashlib.md5(logical.encode()).hexdigest()


def held(position: object) -> Decimal:
    """Absolute quantity of a position; nothing readable counts as flat (defect 7)."""
    record = position if isinstance(position, dict) else {"qty": position}
    names = ("qty", "size", "position_qty", "positionQty", "contracts")
    return next((value for name in names if (value := abs(number(record.get(name)))) > 0), Decimal(0))


def by_symbol(mapping: object, symbol_token: str) -> object:
    if isinstance(mapping, dict):
        for symbol, value in mapping.items():
            if token(symbol) == symbol_token:
                return value
    return None


def decide(book: Mapping[str, object]) -> Verdict:
    """The source's run over one profile of the book."""
    config = book.get("config") or {}
    assert isinstance(config, dict)
    settings = Settings.read(config)
    profile_id = text(book.get("profile_id", "p1"))
    if not settings.enabled:
        return Verdict(attempted=False, skipped_reason="disabled")
    if settings.allowlist and profile_id not in settings.allowlist:
        return Verdict(attempted=False, skipped_reason="profile_not_allowlisted")
    if settings.require_pause and not book.get("paused", True):
        return Verdict(attempted=False, skipped_reason="pause_required")
    if not book.get("audit_available", True):
        return Verdict(attempted=False, skipped_reason="audit_table_missing")
    return _decide_open_trades(book, settings, profile_id)


def _decide_open_trades(book: Mapping[str, object], settings: Settings, profile_id: str) -> Verdict:
    now_ms = int(number(book.get("now_ms")))
    all_rows = [row for row in book.get("lifecycle_rows") or [] if isinstance(row, dict)]  # type: ignore[union-attr]
    own_rows = [row for row in all_rows if text(row.get("profile_id", profile_id)) == profile_id]
    trades = open_trades([row for row in own_rows if status_of(row.get("status")) in FILLED_STATES], now_ms)
    managed = book.get("managed_symbols")
    if isinstance(managed, list):
        scope = {token(symbol) for symbol in managed}
        trades = [trade for trade in trades if token(trade.symbol) in scope]
    verdict = Verdict(attempted=True, open_trade_candidates=len(trades))
    pending = {
        text(row.get("trade_id"))
        for row in book.get("open_orders") or []  # type: ignore[union-attr]
        if isinstance(row, dict) and text(row.get("profile_id", profile_id)) == profile_id
    } - {""}
    for symbol_token in dict.fromkeys(token(trade.symbol) for trade in trades):
        group = [trade for trade in trades if token(trade.symbol) == symbol_token]
        orders = listed(by_symbol(book.get("closed_orders"), symbol_token), now_ms - settings.lookback_ms)
        fills = [
            fill
            for fill in fills_of(symbol_token, orders, now_ms)
            if usable(fill, profile_id, strong_only=settings.strong_only)
        ]
        given, _left = assign(group, fills, profile_id, settings)
        position = held(by_symbol(book.get("positions"), symbol_token))
        for trade in group:
            if trade.trade_id in pending:
                verdict.advisory.append(_refusal(trade, "SKIP_PENDING_ORDER", "pending_order_blocker", trade.open))
            else:
                fills_given = sorted(given[trade.trade_id], key=lambda fill: fill.at_ms)
                _close(verdict, trade, fills_given, position, settings, profile_id, text(book.get("user_id", "u1")))
    _audit(verdict, book, own_rows)
    return verdict


def _refusal(trade: Trade, decision: str, reason: str, left_open: Decimal) -> dict[str, object]:
    return {
        "trade_id": trade.trade_id,
        "symbol": trade.symbol,
        "decision": decision,
        "reason": reason,
        "open": left_open,
    }


def _close(
    verdict: Verdict, trade: Trade, fills: list[Fill], position: Decimal, settings: Settings, profile: str, user: str
) -> None:
    """Rows for what the fills cover, then the remainder as dust or as a refusal."""
    remaining, used = trade.open, 0

    def propose(exchange_order_id: str, fill: Fill | None, side: str, quantity: Decimal, at_ms: int, how: str) -> None:
        verdict.proposed.append(
            {
                "order_id": backfill_id(profile, trade.trade_id, exchange_order_id, at_ms),
                "user_id": trade.user_id or user,
                "profile_id": profile,
                "trade_id": trade.trade_id,
                "symbol": trade.symbol,
                "side": side,
                "qty": eight(quantity),
                "price": eight(fill.price) if fill else Decimal(0),
                "timestamp": at_ms,
                "filled_at": iso(at_ms),
                "sub_tag": fill.tag if fill else "",
                "exchange_order_id": exchange_order_id,
                "exchange_client_order_id": fill.client_order_id if fill and how != "dust" else "",
                "matched_by": how,
            }
        )

    for fill in fills:
        quantity = min(remaining, fill.quantity)
        if quantity <= NOTHING_LEFT:
            continue
        propose(fill.order_id, fill, fill.side, quantity, fill.at_ms, fill.matched_by)
        remaining, used = eight(remaining - quantity), used + 1
    if remaining <= NOTHING_LEFT:
        return
    flat, small = position <= settings.dust_abs, remaining <= settings.dust(trade.open)
    last = fills[-1] if fills else None
    if small and flat:
        at_ms = last.at_ms if last else trade.newest_ms
        propose(f"DUST-REMAINDER-{trade.trade_id}", last, trade.exit_side, remaining, at_ms, "dust")
    elif not flat and used == 0:
        reason = f"exchange_not_flat:{plain(position)}"
        verdict.advisory.append(_refusal(trade, "SKIP_ACTIVE_POSITION", reason, remaining))
    elif not flat and small:
        reason = "dust_remainder_blocked_exchange_not_flat"
        verdict.advisory.append(_refusal(trade, "SKIP_ACTIVE_POSITION", reason, remaining))
    else:
        verdict.no_go.append(_refusal(trade, "NO_GO", "missing_fill_evidence_for_large_remainder", remaining))


def _audit(verdict: Verdict, book: Mapping[str, object], own_rows: list[dict[str, object]]) -> None:
    known = book.get("existing_order_ids")
    existing = set(known) if isinstance(known, list) else {text(row.get("order_id")) for row in own_rows}
    applying = bool(book.get("apply", False))
    for row in verdict.proposed:
        old = row["order_id"] in existing
        before = "PENDING_APPLY" if applying else "DRY_RUN"
        verdict.audit_rows.append({**row, "decision": before, "reason": "already_exists" if old else "eligible"})
    verdict.audit_rows += verdict.no_go + verdict.advisory
    for row in verdict.proposed:
        old = row["order_id"] in existing
        if applying:
            decision, reason = ("SKIP_EXISTING", "already_exists") if old else ("APPLIED", "inserted")
            verdict.audit_rows.append({**row, "decision": decision, "reason": reason})
        if not old:
            verdict.inserted.append(row)
            existing.add(row["order_id"])
