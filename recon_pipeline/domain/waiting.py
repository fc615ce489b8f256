"""What waits for a person after a profile's cycle: one case for each thing, with the money at risk where it is known.

What belongs here: which findings, trades and states make a case, how a case is recognised again, and the order of cases. What
does not: keeping them (``ledger.waiting``) and showing them (``ops.page``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final

import pandas as pd

from recon_pipeline.domain.corrections import Finding, Stage
from recon_pipeline.domain.cycle_frames import PARITY_STATES
from recon_pipeline.domain.frames import NO_TIME, rows_of
from recon_pipeline.domain.plan import ProfilePlan
from recon_pipeline.domain.quantities import EXACT, decimal_text_e9
from recon_pipeline.domain.terms import Decision

_LONGEST_KEY: Final = 400
"""Characters; a longer key is cut and hashed: an index of Postgres takes no row of more than a few kilobytes."""


@dataclass(frozen=True)
class WaitingCase:
    """Something that no later cycle can resolve by itself."""

    profile_id: str
    account_id: str
    stage: Stage
    reason: str
    root_cause: str = ""
    """what the facts say it is; empty where they say nothing"""
    trade_id: str = ""
    order_id: str = ""
    """key of the row in orders, where it is about one"""
    exchange_order_id: str = ""
    symbol: str = ""
    notional_usd: Decimal | None = None
    """money at risk in USD; None where no price is known. Cases of one trade have the same money, not each their own"""
    first_seen_ms: int = NO_TIME
    """when it was seen first, where the cycle knows; NO_TIME: with this cycle"""
    detail: Mapping[str, object] = field(default_factory=dict)
    """numbers and texts behind it, as JSON values"""

    @property
    def case_key(self) -> str:
        """What recognises the case in the next cycle: stage, reason without its number, and what it is about."""
        about = (self.trade_id, self.order_id, self.exchange_order_id)
        parts = [self.stage.value, self.reason.partition(":")[0], *about]
        if not any(about):
            parts.append(self.symbol)
        key = "|".join(parts)
        if len(key) <= _LONGEST_KEY:
            return key
        return f"{key[:_LONGEST_KEY]}|{hashlib.sha256(key.encode()).hexdigest()}"


def waiting_cases(
    profile_id: str,
    account_id: str,
    *,
    findings: Iterable[Finding],
    plan: ProfilePlan | None,
    parity: pd.DataFrame,
) -> tuple[WaitingCase, ...]:
    """What waits for a person after one profile's cycle, most money first; what has no known money last.

    Findings that need a person, NO_GO decisions of the exit backfill, and trades that position parity has quarantined. The order
    of the inputs does not matter. A finding without a profile, which is about the account, is filed under this profile.

    :param findings: of all stages of the profile's cycle
    :param plan: of the exit backfill; None where there was none
    :param parity: PARITY_STATES of the profile after the cycle
    """
    cases = [
        *(_of_finding(profile_id, account_id, finding) for finding in findings if finding.needs_person),
        *(() if plan is None or plan.decisions.empty else _of_plan(account_id, plan)),
        *_of_parity(account_id, parity),
    ]
    states = {row.trade_id: row for row in rows_of(parity[PARITY_STATES.names])}
    distinct: dict[str, WaitingCase] = {}
    for case in sorted(cases, key=_richest_first):
        distinct.setdefault(case.case_key, case)
    money = _money_of_trades(plan, states, distinct.values())
    known = (_with_what_is_known(case, money, states) for case in distinct.values())
    return tuple(sorted(known, key=rank))


def rank(case: WaitingCase) -> tuple[Any, ...]:
    """Sort key: most money first, unknown money last, then by what it is."""
    unknown = case.notional_usd is None
    return (unknown, -(case.notional_usd or Decimal(0)), case.profile_id, case.case_key)


def _of_finding(profile_id: str, account_id: str, finding: Finding) -> WaitingCase:
    return WaitingCase(
        profile_id=profile_id,
        account_id=account_id,
        stage=finding.stage,
        reason=finding.reason,
        root_cause=str(finding.detail.get("root_cause") or ""),
        trade_id=finding.trade_id,
        order_id=finding.order_id,
        exchange_order_id=finding.exchange_order_id,
        symbol=finding.symbol,
        detail=finding.detail,
    )


def _of_plan(account_id: str, plan: ProfilePlan) -> list[WaitingCase]:
    """The NO_GO decisions, one case for each trade and reason; quantities and money of its decisions are summed."""
    decisions = plan.decisions[plan.decisions["decision"] == Decision.NO_GO.value]
    grouped: dict[tuple[str, str], list[Any]] = {}
    for row in rows_of(decisions):
        grouped.setdefault((row.trade_id, row.reason), []).append(row)
    cases = []
    for (trade_id, reason), rows in grouped.items():
        worths = [row.notional_usd for row in rows]
        cases.append(
            WaitingCase(
                profile_id=plan.profile_id,
                account_id=account_id,
                stage=Stage.EXIT_BACKFILL,
                reason=reason,
                trade_id=trade_id,
                symbol=rows[0].symbol,
                notional_usd=None if None in worths else _sum(worths),
                detail={
                    "quantity": decimal_text_e9(sum(int(row.qty_e9) for row in rows)),
                    "backfill_order_ids": sorted(row.backfill_order_id for row in rows if row.backfill_order_id),
                    "exchange_order_ids": sorted(row.exchange_order_id for row in rows if row.exchange_order_id),
                    "batch_id": plan.batch_id,
                },
            )
        )
    return cases


def _of_parity(account_id: str, parity: pd.DataFrame) -> list[WaitingCase]:
    """Quarantined trades. Where the trade is confirmed, its finding says the same with more around it."""
    return [
        WaitingCase(
            profile_id=row.profile_id,
            account_id=account_id,
            stage=Stage.POSITION_PARITY,
            reason=row.reason,
            root_cause=row.root_cause,
            trade_id=row.trade_id,
            symbol=row.symbol,
            notional_usd=row.notional_usd,
            detail={
                "confirmations": int(row.confirmations),
                "open": decimal_text_e9(int(row.open_e9)),
                "position": decimal_text_e9(int(row.position_e9)),
            },
        )
        for row in rows_of(parity[PARITY_STATES.names])
        if row.quarantined
    ]


def _money_of_trades(
    plan: ProfilePlan | None, states: Mapping[str, Any], cases: Iterable[WaitingCase]
) -> dict[str, Decimal]:
    """What is at risk in each trade: what it leaves open or what of it is out of line, whichever is more."""
    known = [(case.trade_id, case.notional_usd) for case in cases if case.trade_id]
    known += [(trade_id, state.notional_usd) for trade_id, state in states.items()]
    if plan is not None:
        known += [(row.trade_id, row.notional_usd) for row in rows_of(plan.trades)]
    worths: dict[str, Decimal] = {}
    for trade_id, worth in known:
        if worth is not None:
            worths[trade_id] = max(worth, worths.get(trade_id, worth))
    return worths


def _with_what_is_known(case: WaitingCase, money: Mapping[str, Decimal], states: Mapping[str, Any]) -> WaitingCase:
    """The case with the money of its trade and, of a trade that is out of line, its cause and since when."""
    if not case.trade_id:
        return case
    case, state = replace(case, notional_usd=money.get(case.trade_id)), states.get(case.trade_id)
    if state is not None:
        first_seen = int(state.first_seen_ms) if case.stage is Stage.POSITION_PARITY else case.first_seen_ms
        case = replace(case, root_cause=case.root_cause or state.root_cause, first_seen_ms=first_seen)
    return case


def _richest_first(case: WaitingCase) -> tuple[Any, ...]:
    """Of two that are one case, the one that says more comes first; then whatever order the inputs do not decide."""
    return (-len(case.detail), case.profile_id, case.case_key, repr(sorted(case.detail.items())))


def _sum(worths: Iterable[Decimal]) -> Decimal:
    total = Decimal(0)
    for worth in worths:
        total = EXACT.add(total, worth)
    return total
