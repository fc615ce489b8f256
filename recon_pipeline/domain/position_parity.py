"""Position parity: trades that the ledger leaves open and the exchange does not hold, counted, explained, and closed.

Per account and symbol the ledger's signed open quantity of all profiles is compared with the account's signed position. Out
of line, every open trade of the symbol counts: whose ghost it is can't be told from a sum. Only a trade that nothing can
still explain is closed by a *synthetic exit*: the one row of the pipeline that cites no execution, and says so. It needs the
same mismatch, confirmed in several cycles, on a flat symbol whose open trades are all on one side, attributed by sub-tag,
with no order alive and no execution waiting to be booked. Later evidence supersedes it (``superseding``).

What does not belong here: keeping the confirmations (``ledger.cycle_state``) and pausing (``watchdog``).

Rules beside those in DESIGN 7
------------------------------
* A cycle in which an order is alive, or evidence waits to be booked, confirms nothing and resets nothing.
* A symbol whose position is not known is frozen: its trades keep their state. So is a profile whose reading is incomplete.
* Money out of line: of the difference of a symbol each profile counts as much as it has open, at the entry prices.
* A person is called only for what stays out of line for all confirmations and no cycle can close.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import reduce
from typing import Any, Final

import numpy as np
import pandas as pd

from recon_pipeline.domain.attribution import TradeKey
from recon_pipeline.domain.corrections import CorrectionPlan, Finding, OrderChange, Stage
from recon_pipeline.domain.cycle_frames import PARITY_STATES, CycleInputs
from recon_pipeline.domain.cycle_policy import PositionParityPolicy
from recon_pipeline.domain.frames import POSITIONS, frame_of, rows_of
from recon_pipeline.domain.parity_facts import (
    PARITY_PREFIX,
    LiveOrders,
    SymbolKey,
    TradeTags,
    existing_synthetic,
    free_executions,
)
from recon_pipeline.domain.parity_judgement import Line, Surroundings, judge
from recon_pipeline.domain.positions import AccountPositions
from recon_pipeline.domain.quantities import EXACT, decimal_text_e9, integer_array, to_e9
from recon_pipeline.domain.symbol_balances import Balance, open_trades, symbol_balances
from recon_pipeline.domain.symbols import symbol_token
from recon_pipeline.domain.synthetic_exits import QUARANTINED, ParityReason

__all__ = ["PARITY_PREFIX", "ParityReason", "PositionParityPlan", "ProfileParity", "plan_position_parity"]

POSITION_WITHOUT_TRADE: Final = "position_without_trade"
"""Reason of the finding about a position that no trade of the account explains."""
_NOTHING: Final = Decimal(0)


@dataclass(frozen=True)
class ProfileParity:
    """The counters of one decided profile."""

    mismatch_trades: int = 0
    """open trades of symbols that are out of line"""
    quarantined_trades: int = 0
    """of them, those whose ghost can't be proven to be theirs"""
    auto_closable_trades: int = 0
    """of them, those that get a synthetic exit"""
    awaiting_trades: int = 0
    """of them, those that only lack confirmations"""
    unpriced_trades: int = 0
    """of them, those whose money is not known"""
    frozen_trades: int = 0
    """open trades of symbols whose position is not known: nothing was concluded"""
    max_confirmations: int = 0
    max_mismatch_notional_usd: Decimal = _NOTHING
    """of one trade"""
    total_mismatch_notional_usd: Decimal = _NOTHING

    @property
    def counts(self) -> dict[str, int]:
        """The counters that are counts, by name."""
        names = ("mismatch_trades", "quarantined_trades", "auto_closable_trades", "awaiting_trades", "unpriced_trades")
        return {name: getattr(self, name) for name in (*names, "frozen_trades", "max_confirmations")}


@dataclass(frozen=True)
class PositionParityPlan:
    """What position parity found in the selected profiles."""

    profiles: Mapping[str, ProfileParity]
    """counters of every decided profile"""
    skipped: Mapping[str, str]
    """selected profile to why nothing was decided: disabled, evidence_incomplete, exchange_position_unknown"""
    states: pd.DataFrame
    """PARITY_STATES of the selected profiles from now on, by profile and trade; of a skipped profile as it was"""
    changes: tuple[OrderChange, ...]
    findings: tuple[Finding, ...]
    """one per trade that is out of line, by profile and trade"""
    account_findings: tuple[Finding, ...]
    """positions that no trade explains, without a profile; ``detail`` names the account"""
    members: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """(user id, account id) of every selected profile"""

    def for_profile(self, profile_id: str, batch_id: str) -> CorrectionPlan:
        """The synthetic exits of one selected profile, as ``apply`` takes them.

        :raises KeyError: the profile was not selected
        """
        if profile_id not in self.members:
            raise KeyError(f"profile {profile_id!r} is not part of this plan; select it when planning")
        user_id, account_id = self.members[profile_id]
        return CorrectionPlan(
            profile_id=profile_id,
            user_id=user_id,
            account_id=account_id,
            stage=Stage.POSITION_PARITY,
            batch_id=batch_id,
            changes=tuple(change for change in self.changes if change.profile_id == profile_id),
        )


def plan_position_parity(
    inputs: CycleInputs,
    slices: pd.DataFrame,
    policy: PositionParityPolicy,
    state: pd.DataFrame,
    *,
    waiting: frozenset[TradeKey],
    ownership: pd.DataFrame,
    evidence: pd.DataFrame,
    now_ms: int,
) -> PositionParityPlan:
    """Judge every open trade of the selected profiles against the positions of their accounts.

    :param slices: SLICES of all profiles of the accounts, after the corrections of this cycle
    :param state: PARITY_STATES of the last cycle
    :param waiting: (profile, trade) that the exit backfill proposes evidence for, holds back or blocks as pending
    :param ownership: OWNERSHIP of the order facts
    :param evidence: EVIDENCE of every account that was read
    :raises ValueError: a profile occurs twice, or a slice names one that ``inputs.profiles`` does not hold
    """
    members = list(rows_of(inputs.profiles))
    account_of = {member.profile_id: member.account_id for member in members}
    if len(account_of) < len(members):
        raise ValueError("inputs.profiles names a profile twice; give one row per profile")
    selected = {member.profile_id: member for member in members if member.selected}
    skipped = {
        profile: why
        for profile, member in selected.items()
        if (why := _skipped(member, inputs, enabled=policy.enabled))
    }
    decided = frozenset(selected) - frozenset(skipped)
    previous = {(row.profile_id, row.trade_id): row for row in rows_of(state) if row.profile_id in selected}
    trades = open_trades(slices, account_of)
    accounts = sorted({account_of[profile] for profile in decided})
    positions = _positions(inputs, accounts)
    trades = trades[trades["account_id"].isin(accounts)].reset_index(drop=True)
    rows = list(rows_of(trades))
    balances = symbol_balances(trades, positions, policy)
    crooked = [balance for balance in balances if balance.position_e9 is not None and not balance.in_line]
    around = _surroundings(inputs, slices, rows, crooked, positions, waiting, ownership, evidence, account_of, policy)

    judged = [
        line for balance in crooked for line in judge(balance, rows, decided, previous, around, policy, now_ms=now_ms)
    ]
    frozen = [rows[at] for balance in balances if balance.position_e9 is None for at in balance.trades]
    frozen = [trade for trade in frozen if trade.profile_id in decided]
    kept = [previous[key] for key in previous if key[0] in skipped]
    kept += [previous[key] for trade in frozen if (key := (trade.profile_id, trade.trade_id)) in previous]
    judged.sort(key=lambda line: (line.trade.profile_id, line.trade.trade_id))
    return PositionParityPlan(
        profiles=_counters(decided, judged, frozen),
        skipped=skipped,
        states=_states(
            [
                *(line.state for line in judged),
                *(tuple(getattr(row, name) for name in PARITY_STATES.names) for row in kept),
            ]
        ),
        changes=tuple(line.change for line in judged if line.change is not None),
        findings=tuple(line.finding for line in judged),
        account_findings=_account_findings(inputs, around, decided),
        members={profile: (member.user_id, member.account_id) for profile, member in sorted(selected.items())},
    )


def _skipped(member: Any, inputs: CycleInputs, *, enabled: bool) -> str:
    if not enabled:
        return "disabled"
    if member.evidence_defect:
        return "evidence_incomplete"
    return "exchange_position_unknown" if member.account_id in inputs.positions_unknown else ""


def _positions(inputs: CycleInputs, accounts: Iterable[str]) -> dict[str, AccountPositions]:
    read = dict(iter(inputs.positions.groupby("account_id"))) if len(inputs.positions) else {}
    return {
        account: AccountPositions.of(
            read.get(account, POSITIONS.empty()), complete=account not in inputs.positions_unknown
        )
        for account in accounts
    }


def _surroundings(
    inputs: CycleInputs,
    slices: pd.DataFrame,
    rows: list[Any],
    crooked: list[Balance],
    positions: Mapping[str, AccountPositions],
    waiting: frozenset[TradeKey],
    ownership: pd.DataFrame,
    evidence: pd.DataFrame,
    account_of: Mapping[str, str],
    policy: PositionParityPolicy,
) -> Surroundings:
    flat = to_e9(policy.dust_abs_qty, floor=True)
    traded = {(trade.account_id, trade.symbol_token) for trade in rows}
    unexplained = {
        account: {
            token: quantity
            for token, quantity in sorted(held.held.items())
            if quantity is not None and abs(quantity) > flat and (account, token) not in traded
        }
        for account, held in positions.items()
    }
    about = [rows[at] for balance in crooked for at in balance.trades]
    entries = {
        (trade.profile_id, trade.trade_id): (trade.entry_side, int(trade.entry_e9))
        for trade in about
        if not trade.defect
    }
    entered: dict[SymbolKey, int] = {}
    tokens = {balance.token for balance in crooked}
    for trade in rows_of(slices[slices["symbol_token"].isin(tokens)]) if tokens else ():
        key = (account_of[trade.profile_id], trade.symbol_token)
        entered[key] = entered.get(key, 0) + int(trade.entry_e9)
    return Surroundings(
        live=LiveOrders.of(inputs.ledger_orders, inputs.order_facts, account_of),
        free=free_executions(evidence, ownership),
        tags=TradeTags.of(inputs.ledger_orders, entries, account_of),
        synthetic=existing_synthetic(inputs.ledger_orders),
        waiting=waiting,
        unexplained=unexplained,
        entered=entered,
    )


def _counters(decided: frozenset[str], lines: list[Line], frozen: list[Any]) -> dict[str, ProfileParity]:
    """The counters of every decided profile, in the order of their ids."""
    of: dict[str, list[Line]] = {profile: [] for profile in sorted(decided)}
    for line in lines:
        of[line.trade.profile_id].append(line)
    kept = Counter(trade.profile_id for trade in frozen)
    return {profile: _counted(own, kept[profile]) for profile, own in of.items()}


def _counted(own: list[Line], frozen: int) -> ProfileParity:
    money = [line.notional_usd for line in own if line.notional_usd is not None]
    return ProfileParity(
        mismatch_trades=len(own),
        quarantined_trades=sum(line.reason in QUARANTINED for line in own),
        auto_closable_trades=sum(line.change is not None for line in own),
        awaiting_trades=sum(line.reason == ParityReason.AWAITING for line in own),
        unpriced_trades=len(own) - len(money),
        frozen_trades=frozen,
        max_confirmations=max((line.confirmations for line in own), default=0),
        max_mismatch_notional_usd=max(money, default=_NOTHING),
        total_mismatch_notional_usd=reduce(EXACT.add, money, _NOTHING),
    )


def _states(values: list[tuple[Any, ...]]) -> pd.DataFrame:
    if not values:
        return PARITY_STATES.empty()
    values.sort(key=lambda row: (row[0], row[1]))
    columns: dict[str, Any] = dict(zip(PARITY_STATES.names, zip(*values, strict=True), strict=True))
    for column in PARITY_STATES.columns:
        if column.type == "quantity":
            columns[column.name] = integer_array([int(value) for value in columns[column.name]])
        elif column.type in {"count", "instant"}:
            columns[column.name] = np.array(columns[column.name], dtype=np.int64)
        elif column.type == "bool":
            columns[column.name] = np.array(columns[column.name], dtype=bool)
    return frame_of(PARITY_STATES, columns)


def _account_findings(inputs: CycleInputs, around: Surroundings, decided: frozenset[str]) -> tuple[Finding, ...]:
    """Positions in scope of a profile of the account that no trade explains; ours to book are left to the coverage."""
    scopes: dict[str, list[frozenset[str] | None]] = {}
    decides = set()
    for member in rows_of(inputs.profiles):
        symbols = member.managed_symbols
        scope = None if symbols is None else frozenset(symbol_token(symbol) for symbol in symbols)
        scopes.setdefault(member.account_id, []).append(scope)
        if member.profile_id in decided:
            decides.add(member.account_id)
    spelled = {(row.account_id, row.symbol_token): row.symbol for row in rows_of(inputs.positions)}
    found = []
    for account in sorted(decides):
        for token, quantity in around.unexplained[account].items():
            if not any(scope is None or token in scope for scope in scopes[account]):
                continue
            free = around.free.get((account, token), [])
            under_way = around.live.block(account, token, ("", "")) or any(order.kind == "owned" for order in free)
            found.append(
                Finding(
                    profile_id="",
                    stage=Stage.POSITION_PARITY,
                    reason=POSITION_WITHOUT_TRADE,
                    symbol=spelled.get((account, token), token),
                    needs_person=not under_way,
                    detail={
                        "account_id": account,
                        "position": decimal_text_e9(quantity),
                        "free_orders": [order.order_id for order in free],
                    },
                )
            )
    return tuple(found)
