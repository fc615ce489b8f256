"""The asset checks: each a sentence that is true or not, judged from a profile's outcome.

Exact counts, capped samples, and the recovery step where it does not hold. Not here: their descriptions (``catalogue``), and
what keeps a wrong write from happening: an apply verifies its own preconditions, whatever a check said before.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import dagster as dg
import pandas as pd

from recon_pipeline.defs import catalogue as cat
from recon_pipeline.defs import remedies, tables
from recon_pipeline.defs.shard_run import Outcome
from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.plan import ConservationError, check_conservation
from recon_pipeline.domain.quantities import decimal_text_e9

SAMPLE: Final = 10
_TABLES: Final = ("orders", "positions", "trade_history", "capital_ledger")


@dataclass(frozen=True)
class Verdict:
    """Whether the sentence holds for a profile, what shows it, and what to do where it does not."""

    passed: bool
    description: str
    recovery: str = ""
    count: int = 0
    """how many things speak against it"""
    sample: dg.TableMetadataValue | None = None
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """Return what the UI shows with it."""
        entries: dict[str, Any] = {"violations": self.count, **self.numbers}
        if not self.passed and self.recovery:
            entries["what_to_do"] = self.recovery
        if self.sample is not None:
            entries["sample"] = self.sample
        return entries


def judge(name: str, outcome: Outcome) -> Verdict | None:
    """Return the verdict of one check; None where this outcome says nothing about it."""
    return _JUDGES[name](outcome)


def _evidence_is_complete(outcome: Outcome) -> Verdict | None:
    if outcome.account is None:
        return None
    certificate = outcome.account.certificate
    rows = [(reason,) for reason in certificate.reasons]
    return Verdict(
        certificate.complete,
        "The reading of the account is complete."
        if certificate.complete
        else f"The reading of the account is not complete: {'; '.join(certificate.reasons[:3])}",
        "Nothing is proposed from an incomplete reading. Launch the dry run again; see 'Evidence' in the runbook.",
        len(certificate.reasons),
        tables.table((("reason", ""),), rows, cap=SAMPLE) if rows else None,
        numbers={"pages": certificate.pages, "calls": certificate.calls},
    )


def _no_fill_is_used_twice(outcome: Outcome) -> Verdict | None:
    if outcome.plan is None or not outcome.plan.attempted:
        return None
    frame = outcome.plan.evidence
    used = frame["represented_e9"] + frame["allocated_e9"]
    wrong = frame[used > frame["executed_e9"]]
    verification = outcome.verification
    failed = (
        []
        if verification is None
        else [c for c in verification.checks if c.name == "no fill is used twice" and not c.passed]
    )
    rows = [(row.order_id, row.symbol, decimal_text_e9(row.executed_e9)) for row in rows_of(wrong)]
    rows += [("", "", check.detail) for check in failed]
    return Verdict(
        not rows,
        f"{len(frame)} executed orders give no more than they executed."
        if not rows
        else f"{len(rows)} exchange orders are used for more than they executed.",
        "Stop: do not apply. Find the backfill rows that cite the order (sql/exit_backfill_runbook.sql, validate_inserted_rows) "
        "and roll their batch back.",
        len(rows),
        tables.table((("exchange_order", ""), ("symbol", ""), ("detail", "")), rows, cap=SAMPLE) if rows else None,
        numbers={"executed_orders": len(frame)},
    )


def _conservation_holds(outcome: Outcome) -> Verdict | None:
    if outcome.plan is None or not outcome.plan.attempted:
        return None
    try:
        totals = check_conservation(outcome.plan.trades, outcome.plan.evidence)
    except ConservationError as error:
        return Verdict(False, str(error), "A defect of this program: do not apply, keep the snapshot and report it.", 1)
    return Verdict(
        True,
        "Every exchange order and every trade of the plan adds up.",
        numbers={"exchange_orders": len(outcome.plan.evidence), "trades": len(outcome.plan.trades), **totals},
    )


def _ledger_unchanged(outcome: Outcome) -> Verdict | None:
    before, after = outcome.before, outcome.after
    if before is None or after is None:
        return None
    changed = [name for name in _TABLES if before[name] != after[name]]
    paused = outcome.pause.paused
    if not changed:
        return Verdict(
            True,
            f"{before['order_rows']} orders and the books are as before.",
            numbers={"orders": before["order_rows"]},
        )
    others = (
        "bots were writing meanwhile: they are not paused"
        if not paused
        else "somebody else wrote them, although trading is paused"
    )
    return Verdict(
        False,
        f"{', '.join(changed)} changed while the dry run was at work.",
        f"A dry run's role may not write these tables, so {others}. Pause trading and launch it again; the plan is of the "
        "moment of its reading.",
        len(changed),
        severity=dg.AssetCheckSeverity.ERROR if paused else dg.AssetCheckSeverity.WARN,
        numbers={"orders": after["order_rows"]},
    )


def _planning_again(outcome: Outcome) -> Verdict | None:
    if outcome.applied is None or not outcome.was_applied:
        return None
    if outcome.again_failure:
        return Verdict(
            False,
            f"The apply is done, but could not be verified: {outcome.again_failure}",
            "Launch a dry run of the profile: it has to propose nothing.",
            1,
        )
    if outcome.again is None:
        return Verdict(True, "Nothing was applied, nothing is to be planned again.")
    again = outcome.again
    failed = [check for check in outcome.verification.checks if not check.passed] if outcome.verification else []
    if not again.attempted:
        return Verdict(
            False,
            f"The apply is done, but planning again was skipped: {again.skipped_reason}.",
            remedies.for_skipped(again.skipped_reason),
            1,
            severity=dg.AssetCheckSeverity.WARN,
        )
    count = len(again.proposals) + len(failed)
    rows = [(row.trade_id, row.symbol, decimal_text_e9(row.qty_e9)) for row in rows_of(again.proposals)]
    rows += [("", check.name, check.detail) for check in failed]
    return Verdict(
        count == 0,
        "Reading and planning again proposes nothing, and the batch verifies."
        if count == 0
        else f"Planning again proposes {len(again.proposals)} rows; {len(failed)} statements about the batch fail.",
        "Do not apply again. Roll the batch back (exit_backfill_rollback) and compare both plans.",
        count,
        tables.table((("trade", ""), ("about", ""), ("detail", "")), rows, cap=SAMPLE) if rows else None,
    )


def _no_over_exit(outcome: Outcome) -> Verdict | None:
    if outcome.plan is None:
        return None
    frame = outcome.plan.over_exits
    rows = [
        (row.trade_id, row.symbol, decimal_text_e9(row.entry_e9), decimal_text_e9(row.exit_e9))
        for row in rows_of(frame)
    ]
    columns = (("trade", ""), ("symbol", ""), ("entered", ""), ("left", ""))
    return Verdict(
        not rows,
        "No trade has left more than it entered."
        if not rows
        else f"{len(rows)} trades have left more than they entered.",
        "A person corrects these rows: an exit is recorded twice, or an entry is missing. The backfill does not touch them.",
        len(rows),
        tables.table(columns, rows, cap=SAMPLE) if rows else None,
    )


def _trading_is_paused(outcome: Outcome) -> Verdict | None:
    if outcome.plan is None:
        return None
    pause = outcome.pause
    said = f"by {pause.source or 'unknown'}: {pause.reason or 'no reason given'}"
    return Verdict(
        pause.paused,
        f"Trading is paused {said}" if pause.paused else "Trading is not paused.",
        "Launch pause_trading before an apply.",
        0 if pause.paused else 1,
        severity=dg.AssetCheckSeverity.ERROR if outcome.ask.apply else dg.AssetCheckSeverity.WARN,
    )


def _no_unexpected_symbol(outcome: Outcome) -> Verdict | None:
    if outcome.reading is None or outcome.account is None or outcome.plan is None:
        return None
    explained = _open_tokens(outcome)
    held = outcome.account.positions
    wrong = held[(held["qty_e9"] != 0) & ~held["symbol_token"].isin(list(explained))]
    rows = [(row.symbol, decimal_text_e9(row.qty_e9)) for row in rows_of(wrong)]
    return Verdict(
        not rows,
        f"{len(held)} symbols held are all traded by open trades of the account."
        if not rows
        else f"{len(rows)} symbols are held that no open trade of the account explains.",
        "Find out who opened them: by hand, another program, or an entry that the ledger lost.",
        len(rows),
        tables.table((("symbol", ""), ("quantity", "signed")), rows, cap=SAMPLE) if rows else None,
        severity=dg.AssetCheckSeverity.WARN,
    )


def _open_tokens(outcome: Outcome) -> set[str]:
    """Symbols with an entry on the account that the ledger does not show as left."""
    if outcome.reading is None or outcome.plan is None:
        return set()
    profiles = outcome.reading.inputs.profiles
    members = set(profiles["profile_id"][profiles["account_id"] == outcome.plan.account_id])
    rows = outcome.reading.inputs.lifecycle_rows
    rows = rows[rows["profile_id"].isin(members) & rows["status"].isin(["filled", "partially_filled"])]
    signed: dict[str, int] = {}
    for row in rows_of(rows):
        signed[row.symbol_token] = signed.get(row.symbol_token, 0) + (1 if row.side == "BUY" else -1) * int(row.qty_e9)
    plan = outcome.plan.proposals
    for row in rows_of(plan if isinstance(plan, pd.DataFrame) else pd.DataFrame()):
        signed[row.symbol_token] = signed.get(row.symbol_token, 0) + (1 if row.side == "BUY" else -1) * int(row.qty_e9)
    return {token for token, units in signed.items() if units != 0}


_JUDGES: Final[dict[str, Callable[[Outcome], Verdict | None]]] = {
    cat.EVIDENCE_IS_COMPLETE: _evidence_is_complete,
    cat.NO_FILL_IS_USED_TWICE: _no_fill_is_used_twice,
    cat.CONSERVATION_HOLDS: _conservation_holds,
    cat.LEDGER_UNCHANGED: _ledger_unchanged,
    cat.PLANNING_AGAIN: _planning_again,
    cat.NO_OVER_EXIT: _no_over_exit,
    cat.TRADING_IS_PAUSED: _trading_is_paused,
    cat.NO_UNEXPECTED_SYMBOL: _no_unexpected_symbol,
}
