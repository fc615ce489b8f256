"""The judgement of one symbol that is out of line: for each of its trades what speaks against closing it, and how sure that is.

What does not belong here: which symbols are out of line (``symbol_balances``), and the plan made of it (``position_parity``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from recon_pipeline.domain.attribution import TradeKey
from recon_pipeline.domain.corrections import Finding, OrderChange, Stage
from recon_pipeline.domain.cycle_policy import PositionParityPolicy
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.order_keys import Kind
from recon_pipeline.domain.parity_facts import LiveOrders, SymbolKey, Tagged, TradeTags
from recon_pipeline.domain.quantities import EPSILON_E9, decimal_text, decimal_text_e9
from recon_pipeline.domain.remainders import notional
from recon_pipeline.domain.root_causes import FreeExecution, SymbolCase, TradeCase, root_cause
from recon_pipeline.domain.symbol_balances import Balance, shares_e9
from recon_pipeline.domain.synthetic_exits import (
    BLOCKING,
    QUARANTINED,
    RESOLVES_ITSELF,
    ParityReason,
    order_id_of,
    synthetic_exit,
)
from recon_pipeline.domain.terms import opposite


@dataclass(frozen=True)
class Surroundings:
    """What is around the trades that are out of line."""

    live: LiveOrders
    free: Mapping[SymbolKey, list[FreeExecution]]
    tags: TradeTags
    synthetic: Mapping[str, str]
    waiting: frozenset[TradeKey]
    unexplained: Mapping[str, Mapping[str, int]]
    """by account and symbol token: positions that no trade explains"""
    entered: Mapping[SymbolKey, int]


@dataclass(frozen=True)
class Line:
    """One trade that is out of line."""

    trade: Any
    state: tuple[Any, ...]
    """values of PARITY_STATES"""
    reason: str
    confirmations: int
    notional_usd: Decimal | None
    finding: Finding
    change: OrderChange | None


def judge(
    balance: Balance,
    rows: list[Any],
    decided: frozenset[str],
    previous: Mapping[TradeKey, Any],
    around: Surroundings,
    policy: PositionParityPolicy,
    *,
    now_ms: int,
) -> list[Line]:
    """The trades of one symbol that is out of line."""
    trades = [rows[at] for at in balance.trades]
    mine = [trade for trade in trades if trade.profile_id in decided]
    if not mine:
        return []
    case = _case(balance, trades, around, policy, now_ms)
    money = _out_of_line(mine, abs(balance.difference_e9))
    lines = []
    for trade, quantity in zip(mine, money, strict=True):
        key = (trade.profile_id, trade.trade_id)
        own = TradeCase(*key, int(trade.signed_e9), int(trade.entry_e9), int(trade.first_entry_ms))
        cause = root_cause(case, own).value
        reasons = _speaks_against(trade, balance, around, policy)
        before = previous.get(key)
        signature = _signature(trade, balance)
        blocked = not BLOCKING.isdisjoint(reasons)
        count, first_seen, last_counted = _counted(before, signature, policy, blocked=blocked, now_ms=now_ms)
        confirmed = count >= max(1, policy.confirmations)
        reason = reasons[0] if reasons else (ParityReason.CLOSES if confirmed else ParityReason.AWAITING).value
        worth = notional(trade.entry_price, quantity)
        detail = {
            "account_id": balance.account_id,
            "root_cause": cause,
            "confirmations": count,
            "confirmations_required": max(1, policy.confirmations),
            "first_seen": iso_ms(first_seen),
            "open": decimal_text_e9(int(trade.signed_e9)),
            "ledger": decimal_text_e9(balance.ledger_e9),
            "position": decimal_text_e9(case.position_e9),
            "difference": decimal_text_e9(balance.difference_e9),
            "notional_usd": None if worth is None else decimal_text(worth),
            "speaks_against": list(reasons),
        }
        change = None
        if reason == ParityReason.CLOSES:
            change = synthetic_exit(
                trade,
                filled_at_ms=first_seen,
                sub_tag=around.tags.tags.get(key, ""),
                cause={
                    **{name: value for name, value in detail.items() if name != "speaks_against"},
                    "read_at": iso_ms(now_ms),
                },
            )
        lines.append(
            Line(
                trade=trade,
                state=(
                    *(*key, trade.symbol, signature, count, first_seen, last_counted),
                    *(int(trade.signed_e9), case.position_e9, worth, reason in QUARANTINED, reason, cause),
                ),
                reason=reason,
                confirmations=count,
                notional_usd=worth,
                finding=Finding(
                    profile_id=trade.profile_id,
                    stage=Stage.POSITION_PARITY,
                    reason=reason,
                    order_id=order_id_of(trade) if change is not None else "",
                    trade_id=trade.trade_id,
                    symbol=trade.symbol,
                    needs_person=confirmed and reason not in RESOLVES_ITSELF,
                    detail=detail,
                ),
                change=change,
            )
        )
    return lines


def _case(
    balance: Balance, trades: list[Any], around: Surroundings, policy: PositionParityPolicy, now_ms: int
) -> SymbolCase:
    if balance.position_e9 is None:
        raise ValueError(f"the position of {balance.token} on account {balance.account_id} is not known")
    key = (balance.account_id, balance.token)
    moved = around.unexplained[balance.account_id]
    return SymbolCase(
        ledger_e9=balance.ledger_e9,
        position_e9=balance.position_e9,
        tolerance_e9=balance.tolerance_e9,
        crypto=any(trade.crypto for trade in trades),
        entered_e9=around.entered.get(key, 0),
        opens_e9=tuple(int(trade.signed_e9) for trade in trades),
        executions=tuple(around.free.get(key, ())),
        unexplained_e9=tuple(
            quantity for token, quantity in moved.items() if not around.free.get((balance.account_id, token))
        ),
        since_ms=now_ms - policy.lookback_ms,
        fee_bps=policy.crypto_fee_bps,
    )


def _out_of_line(trades: list[Any], difference: int) -> list[int]:
    """How much of each trade counts as out of line: of the difference each profile as much as it has open, in proportion."""
    sizes = [abs(int(trade.signed_e9)) for trade in trades]
    whole: dict[str, int] = {}
    for trade, size in zip(trades, sizes, strict=True):
        whole[trade.profile_id] = whole.get(trade.profile_id, 0) + size
    out = [0] * len(trades)
    for profile, total in whole.items():
        if total:
            at = [index for index, trade in enumerate(trades) if trade.profile_id == profile]
            parts = shares_e9([sizes[index] for index in at], min(total, difference))
            for index, part in zip(at, parts, strict=True):
                out[index] = part
    return out


def _speaks_against(
    trade: Any, balance: Balance, around: Surroundings, policy: PositionParityPolicy
) -> tuple[str, ...]:
    """Everything that speaks against closing the trade, but the confirmations; the first is the reason."""
    key = (trade.profile_id, trade.trade_id)
    if trade.defect:
        return (str(trade.defect),)
    tagged = around.tags.verdicts[key]
    free = around.free.get((balance.account_id, balance.token), ())
    synthetic = around.synthetic.get(order_id_of(trade))
    checks = (
        (int(trade.open_e9) < -EPSILON_E9, ParityReason.OVER_EXIT),
        (not trade.managed, ParityReason.UNMANAGED),
        (balance.mixed, ParityReason.MIXED_SIDES),
        (not balance.decidable, ParityReason.UNDECIDABLE),
        (tagged is Tagged.CONTRADICTORY, ParityReason.CONTRADICTORY),
        (policy.require_sub_tag and tagged is Tagged.MISSING, ParityReason.UNATTRIBUTED),
        (not balance.flat, ParityReason.NOT_FLAT),
        (around.live.block(balance.account_id, balance.token, key), ParityReason.PENDING),
        (key in around.waiting, ParityReason.EVIDENCE_WAITING),
        (any((order.profile_id, order.trade_id) == key for order in free), ParityReason.UNBOOKED),
        (any(_may_be_its_exit(order, trade) for order in free), ParityReason.UNCLEAR),
        (trade.entry_price is None, ParityReason.NO_PRICE),
        (synthetic == "canceled", ParityReason.PREVIOUSLY_REVERTED),
        (synthetic not in {None, "canceled"}, ParityReason.ALREADY_EXISTS),
    )
    return tuple(reason.value for holds, reason in checks if holds)


def _may_be_its_exit(order: FreeExecution, trade: Any) -> bool:
    """Whether an execution that nothing represents may be the trade's exit: its keys mean the profile, and no one trade.

    What names nobody at all is no claim: positions closed by hand are what a synthetic exit is for.
    """
    claimed = order.profile_id == trade.profile_id or trade.profile_id in order.named_profiles
    on_exit_side = order.side == opposite(trade.entry_side)
    return claimed and order.kind != Kind.OWNED and on_exit_side and order.executed_at_ms >= int(trade.first_entry_ms)


def _signature(trade: Any, balance: Balance) -> str:
    """What is out of line: the trade as the ledger has it, and the position. A flat position is flat however it trembles."""
    position = "flat" if balance.flat else decimal_text_e9(balance.position_e9 or 0)
    parts = (balance.token, trade.entry_side, int(trade.entry_e9), int(trade.exit_e9), int(trade.newest_ms), position)
    return ":".join(str(part) for part in parts)


def _counted(
    before: Any, signature: str, policy: PositionParityPolicy, *, blocked: bool, now_ms: int
) -> tuple[int, int, int]:
    """(confirmations, first seen, last counted) with this cycle."""
    if before is None or before.signature != signature:
        return 1, now_ms, now_ms
    count, first_seen, last_counted = int(before.confirmations), int(before.first_seen_ms), int(before.last_counted_ms)
    if blocked or now_ms <= last_counted or now_ms - last_counted < policy.confirmation_spacing_ms:
        return count, first_seen, last_counted
    return count + 1, first_seen, now_ms
