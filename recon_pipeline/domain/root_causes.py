"""Root causes: what the facts say a difference between ledger and position is. A label for people, never a licence to write.

The rules, the first that fits counts. *Free* is what an order executed and the ledger does not represent; a class of orders
*explains* a difference where what is free of it (all of it, only the side that moves the ledger towards the position, or
one single order) is the difference within the tolerance.

missed_execution           the trade's own free exits close it, or the free orders of the account's profiles explain the
                           difference: a bot, the coverage or the backfill has yet to record them.
manual_close               free orders that nobody's key names, on the exit side and not older than the trade, explain what
                           the orders above leave: somebody closed it by hand.
foreign_profile            free orders under a bot's key of no profile here, not older than the trade, explain it.
crypto_fee                 what is missing of a coin is at most the fee on the entries of the symbol (the setting's, and at
                           least the 25 bps that the exchange takes at most), or what the trade leaves open on its own.
split                      no order explains it, the symbol is no coin, and the position is a small multiple of what the
                           ledger holds, or, where every order of the trade was read, a small fraction of it, without being
                           the sum of some of its trades: a split or another corporate action. Likewise where the position
                           is gone and exactly one other symbol, that neither trades nor orders account for, holds as many
                           or a small ratio of it.
evidence_outside_lookback  nothing above, and the trade is older than the look-back: what closed it may lie before it.
''                         the facts do not say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from itertools import combinations
from typing import Final

from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.quantities import EPSILON_E9
from recon_pipeline.domain.terms import BUY

FEE_BPS: Final = Decimal(25)
"""The most that Alpaca takes of the coin that a buy receives."""
_LARGEST_SPLIT: Final = 100
_LARGEST_TERM: Final = 5
"""Of a split like 3:2, where neither term is one."""
_FEW_TRADES: Final = 10
"""Up to here every subset of a symbol's trades is tried; above only leaving out one."""


class RootCause(StrEnum):
    """Why a trade is out of line, where the facts say so."""

    MISSED_EXECUTION = "missed_execution"
    MANUAL_CLOSE = "manual_close"
    FOREIGN_PROFILE = "foreign_profile"
    CRYPTO_FEE = "crypto_fee"
    SPLIT = "split"
    OUTSIDE_LOOKBACK = "evidence_outside_lookback"
    UNKNOWN = ""


@dataclass(frozen=True)
class FreeExecution:
    """What one exchange order executed and the ledger does not represent."""

    order_id: str
    kind: str
    """whose it is, as in OWNERSHIP"""
    profile_id: str
    trade_id: str
    side: str
    free_e9: int
    executed_at_ms: int
    named_profiles: tuple[str, ...] = ()
    """every profile that its keys may mean"""

    @property
    def signed_e9(self) -> int:
        """What it would add to the ledger's signed quantity."""
        return self.free_e9 if self.side == BUY else -self.free_e9


@dataclass(frozen=True)
class SymbolCase:
    """One symbol of one account that is out of line. Quantities are signed 1e-9 units."""

    ledger_e9: int
    position_e9: int
    tolerance_e9: int
    crypto: bool
    entered_e9: int
    """entries of every trade of the symbol, closed ones too; only read for coins"""
    opens_e9: tuple[int, ...]
    """open quantities of its trades"""
    executions: tuple[FreeExecution, ...]
    unexplained_e9: tuple[int, ...]
    """positions in other symbols of the account that neither trades nor orders account for"""
    since_ms: int
    """start of the look-back; NO_TIME for none"""
    fee_bps: Decimal = FEE_BPS

    @property
    def difference_e9(self) -> int:
        """What the ledger would have to gain."""
        return self.position_e9 - self.ledger_e9


@dataclass(frozen=True)
class TradeCase:
    """One trade of the symbol."""

    profile_id: str
    trade_id: str
    signed_e9: int
    entry_e9: int
    first_entry_ms: int


def root_cause(case: SymbolCase, trade: TradeCase) -> RootCause:
    """The label of one trade that is out of line; see the module for the rules."""
    if case.crypto and 0 < trade.signed_e9 <= _fee(trade.entry_e9, case.fee_bps):
        return RootCause.CRYPTO_FEE
    owned = [order for order in case.executions if order.kind == "owned"]
    if _closed_by_own(trade, owned, case.tolerance_e9) or _explains(owned, case.difference_e9, case.tolerance_e9):
        return RootCause.MISSED_EXECUTION
    rest = case.difference_e9 - sum(order.signed_e9 for order in owned)
    later = [order for order in case.executions if order.executed_at_ms >= trade.first_entry_ms]
    by_hand = [order for order in later if order.kind == "unattributed" and not order.profile_id]
    if _opposite(rest, trade.signed_e9) and _explains(by_hand, rest, case.tolerance_e9):
        return RootCause.MANUAL_CLOSE
    if _explains((order for order in later if order.kind == "foreign"), rest, case.tolerance_e9):
        return RootCause.FOREIGN_PROFILE
    if case.crypto and 0 < -rest <= _fee(case.entered_e9, case.fee_bps):
        return RootCause.CRYPTO_FEE
    if _split(case, trade):
        return RootCause.SPLIT
    return RootCause.OUTSIDE_LOOKBACK if _older(case, trade) else RootCause.UNKNOWN


def is_small_ratio(part: int, whole: int) -> bool:
    """Whether ``part / whole`` is n, 1/n (n from 2 to 100) or a ratio of two numbers up to 5, other than 1."""
    if not part or not whole or (part > 0) != (whole > 0):
        return False
    ratio = Fraction(abs(part), abs(whole)).limit_denominator(_LARGEST_SPLIT)
    low, high = sorted((ratio.numerator, ratio.denominator))
    exact = abs(abs(part) * ratio.denominator - abs(whole) * ratio.numerator) <= EPSILON_E9 * ratio.denominator
    return exact and 0 < low < high <= (_LARGEST_SPLIT if low == 1 else _LARGEST_TERM)


def _fee(entered_e9: int, bps: Decimal) -> int:
    numerator, denominator = (max(bps, FEE_BPS) / 10_000).as_integer_ratio()
    return entered_e9 * numerator // denominator


def _opposite(one: int, other: int) -> bool:
    return (one < 0 < other) or (other < 0 < one)


def _closed_by_own(trade: TradeCase, owned: Iterable[FreeExecution], tolerance: int) -> bool:
    """Whether the trade's own free orders on its exit side close it."""
    closing = sum(
        order.free_e9
        for order in owned
        if (order.profile_id, order.trade_id) == (trade.profile_id, trade.trade_id)
        and _opposite(order.signed_e9, trade.signed_e9)
    )
    return closing > 0 and closing >= abs(trade.signed_e9) - tolerance


def _explains(orders: Iterable[FreeExecution], difference: int, tolerance: int) -> bool:
    """Whether all of them, those that move the ledger the right way, or one alone, are the difference."""
    signed = [order.signed_e9 for order in orders]
    towards = [quantity for quantity in signed if (quantity > 0) == (difference > 0)]
    if abs(difference) <= tolerance or not towards:
        return False
    return any(abs(difference - found) <= tolerance for found in (sum(signed), sum(towards), *towards))


def _split(case: SymbolCase, trade: TradeCase) -> bool:
    if case.crypto or _explains(case.executions, case.difference_e9, case.tolerance_e9):
        return False
    if abs(case.position_e9) <= case.tolerance_e9:
        moved = case.unexplained_e9
        return len(moved) == 1 and (
            abs(moved[0] - case.ledger_e9) <= EPSILON_E9 or is_small_ratio(moved[0], case.ledger_e9)
        )
    if abs(case.position_e9) < abs(case.ledger_e9) and _older(case, trade):
        # A fraction is what an exit that was not read leaves, too.
        return False
    return is_small_ratio(case.position_e9, case.ledger_e9) and not _is_sum_of_some(case.position_e9, case.opens_e9)


def _older(case: SymbolCase, trade: TradeCase) -> bool:
    """Whether orders of the trade may lie before the look-back."""
    return case.since_ms != NO_TIME and trade.first_entry_ms < case.since_ms


def _is_sum_of_some(position: int, opens: Sequence[int]) -> bool:
    """Whether the position is what some of the trades hold: the others are gone, and nothing was split."""
    sizes = range(1, len(opens)) if len(opens) <= _FEW_TRADES else (1, len(opens) - 1)
    return any(abs(sum(some) - position) <= EPSILON_E9 for size in sizes for some in combinations(opens, size))
