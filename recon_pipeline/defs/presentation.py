"""Outcomes as materialization metadata: what an operator wants to see first, asset by asset.

Conventions: counts and money are numbers (the UI plots them over time), ids are entries of their own (copyable), tables are
capped, and every materialization leads to the runbook. Money here is for reading; nothing of it is ever written. Not here:
the tables (``tables``) and the checks (``checks``).
"""

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

import dagster as dg

from recon_pipeline.apply.outcomes import ApplyState
from recon_pipeline.defs import catalogue as cat
from recon_pipeline.defs import remedies, stages, tables
from recon_pipeline.defs.shard_run import Outcome
from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.plan import ProfilePlan
from recon_pipeline.domain.quantities import decimal_text_e9
from recon_pipeline.domain.terms import Decision
from recon_pipeline.exchange.gateway import AccountReading

Metadata: TypeAlias = dict[str, Any]

RUNBOOK: Final = dg.MetadataValue.path(cat.RUNBOOK)


def money(values: Iterable[Decimal | None]) -> float:
    """Return a sum of amounts for a plot."""
    return float(tables.cents(sum((value for value in values if value is not None), Decimal(0))))


def proposed_usd(plan: ProfilePlan) -> float:
    """Return what the proposed rows are worth."""
    return money(tables.worth(row.qty_e9, row.price) for row in rows_of(plan.proposals))


def left_open_usd(plan: ProfilePlan) -> float:
    """Return what stays open after the plan: the money that a person has to look at."""
    return money(plan.trades["notional_usd"])


def summary(outcome: Outcome) -> str:
    """Return the outcome of a profile in one sentence."""
    plan = outcome.plan
    if plan is None:
        return outcome.failure.message if outcome.failure else ""
    if not plan.attempted:
        return f"Skipped: {plan.skipped_reason}. {remedies.for_skipped(plan.skipped_reason)}"
    left = plan.trades[plan.trades["remaining_e9"] > 0]
    parts = [f"{tables.counted(len(plan.proposals), 'row')} proposed (${proposed_usd(plan):,.2f})"]
    if len(left):
        reasons = ", ".join(sorted({str(reason).partition(":")[0] for reason in left["reason"] if reason}))
        parts.append(
            f"{tables.counted(len(left), 'trade')} left open (${left_open_usd(plan):,.2f}; {reasons or 'no reason'})"
        )
    else:
        parts.append("no trade left open" if plan.open_trade_candidates else "no open trade")
    return "; ".join(parts) + "."


def metadata_of(outcome: Outcome, key: str, *, dashboard_url: str, location: str) -> Metadata:
    """Return the metadata of one asset's materialization for one profile."""
    plan, account = outcome.plan, outcome.account
    if plan is None or account is None:
        raise ValueError(f"profile {outcome.profile_id} has no plan to show")
    if key == cat.EXCHANGE_ORDERS_KEY:
        own = account.orders
        executed = own[own["executed_e9"] > 0]
        entries: Metadata = {
            "orders": len(own),
            "orders_with_executions": len(executed),
            "executions": len(account.executions),
            "unusable_orders": int((own["defect"] != "").sum()),
            "account": plan.account_id,
            **_certificate(account),
        }
        return {**entries, **_common(outcome, stages.ORDERS_STAGE)}
    if key == cat.EVIDENCE_KEY:
        return {**_evidence(plan), **_certificate(account), **_common(outcome, stages.EVIDENCE_STAGE)}
    if key == cat.POSITIONS_KEY:
        return {**_positions(account), **_common(outcome, stages.POSITIONS_STAGE)}
    if key == cat.LIFECYCLE_KEY:
        rows = outcome.lifecycle_rows
        if rows is None:
            raise ValueError(f"profile {outcome.profile_id} has no rows to show")
        rows = rows[rows["profile_id"] == outcome.profile_id]
        entries = {
            "rows": len(rows),
            "trades": int(rows["trade_id"].nunique()),
            "backfill_rows": int(rows["order_id"].str.startswith("BFILL-").sum()) if len(rows) else 0,
            "unusable_rows": int((rows["defect"] != "").sum()),
        }
        return {**entries, **_common(outcome, stages.LIFECYCLE_STAGE)}
    if key == cat.SLICES_KEY:
        entries = {
            "open_trades": int(plan.open_trade_candidates),
            "over_exited_trades": len(plan.over_exits),
            "trades_out_of_scope": len(plan.unmanaged),
            "trades": tables.slices_table(plan),
        }
        return {**entries, **_skipped(outcome), **_common(outcome, stages.SLICES_STAGE)}
    if key == cat.PROPOSED_KEY:
        return {**_plan(outcome, plan, dashboard_url, location), **_common(outcome, stages.PROPOSALS_STAGE)}
    if key == cat.AUDIT_KEY:
        return {**_audit(outcome, plan), **_common(outcome, stages.DECISIONS_STAGE)}
    return {**_applied(outcome, plan, dashboard_url, location), **_common(outcome, stages.PROPOSALS_STAGE)}


def _common(outcome: Outcome, stage: str) -> Metadata:
    return {
        "snapshot": dg.MetadataValue.path(outcome.snapshots.get(stage, "")),
        "runbook": RUNBOOK,
    }


def _skipped(outcome: Outcome) -> Metadata:
    if not outcome.skipped_reason:
        return {}
    entries = {"skipped_reason": outcome.skipped_reason, "what_to_do": remedies.for_skipped(outcome.skipped_reason)}
    return {**entries, "skipped_detail": outcome.skipped_detail} if outcome.skipped_detail else entries


def _certificate(account: AccountReading) -> Metadata:
    certificate = account.certificate
    window = f"{tables.instant_text(certificate.window_start_ms)} to {tables.instant_text(certificate.window_end_ms)}"
    return {
        "evidence_complete": certificate.complete,
        "evidence_window": window,
        "evidence_pages": certificate.pages,
        "evidence_calls": certificate.calls,
        **({"evidence_reasons": "; ".join(certificate.reasons)} if certificate.reasons else {}),
    }


def _evidence(plan: ProfilePlan) -> Metadata:
    frame = plan.evidence
    own = frame[frame["profile_id"] == plan.profile_id]
    reasons: dict[str, int] = {}
    for reason in frame["reason"]:
        if reason:
            reasons[reason] = reasons.get(reason, 0) + 1
    return {
        "executed_orders": len(frame),
        "orders_of_this_profile": len(own),
        "allocated_orders": int((frame["allocated_e9"] > 0).sum()),
        "unallocated_orders": int((frame["allocated_e9"] == 0).sum()),
        "account": plan.account_id,
        "evidence": tables.evidence_table(plan),
        "why_not_allocated": tables.table(
            (("reason", "why nothing was allocated"), ("orders", "how many")), sorted(reasons.items())
        ),
    }


def _positions(account: AccountReading) -> Metadata:
    frame = account.positions
    rows = [(row.symbol, decimal_text_e9(row.qty_e9) if row.known else "unknown") for row in rows_of(frame)]
    return {
        "symbols_held": int((frame["qty_e9"] != 0).sum()),
        "unknown_positions": int((~frame["known"].astype(bool)).sum()),
        "positions_known": account.positions_known,
        "account": account.account_id,
        "positions": tables.table((("symbol", ""), ("quantity", "signed, short negative")), rows),
        "as_of": tables.instant_text(account.as_of_ms),
    }


def _plan(outcome: Outcome, plan: ProfilePlan, dashboard_url: str, location: str) -> Metadata:
    ask = outcome.ask
    proposed_as = Decision.PENDING_APPLY if ask.apply else Decision.DRY_RUN
    entries: Metadata = {"outcome": summary(outcome), **_skipped(outcome)}
    if plan.attempted:
        entries |= {
            "digest": plan.digest,
            "batch_id": plan.batch_id,
            "decisions": tables.decision_table(plan, proposed_as=proposed_as),
            "reasons": tables.reasons_table(plan, proposed_as=proposed_as),
        }
    entries |= {
        "proposed_rows": len(plan.proposals),
        "proposed_usd": proposed_usd(plan),
        "no_go_trades": plan.no_go_trades,
        "left_open_usd": left_open_usd(plan),
        "open_trades": int(plan.open_trade_candidates),
        "skipped_trades": int(plan.trades["outcome"].eq("skipped").sum()),
        **_pause(outcome),
        **_certificate_of(outcome),
        "account": plan.account_id,
    }
    if len(plan.proposals) and not ask.apply:
        config = apply_config(plan.digest, reapply_reverted=ask.reapply_reverted)
        entries |= {
            "apply_this_plan": _launchpad(
                "Open exit_backfill_apply with this profile and this digest filled in",
                launchpad_link(dashboard_url, location, "exit_backfill_apply", config, plan.profile_id),
            ),
            "apply_config": dg.MetadataValue.md(f"```yaml\n{as_yaml(config)}```"),
        }
    return entries


def _pause(outcome: Outcome) -> Metadata:
    pause = outcome.pause
    entries: Metadata = {"paused": pause.paused}
    if pause.paused:
        since = pause.since.strftime("%Y-%m-%d %H:%M:%S UTC") if pause.since else "an unknown time"
        entries["paused_since"] = f"{since} by {pause.source or 'unknown'}: {pause.reason or 'no reason given'}"
    return entries


def _certificate_of(outcome: Outcome) -> Metadata:
    return _certificate(outcome.account) if outcome.account else {}


def _audit(outcome: Outcome, plan: ProfilePlan) -> Metadata:
    counts: dict[str, int] = {}
    for decision in plan.decisions["decision"]:
        counts[decision] = counts.get(decision, 0) + 1
    if outcome.applied is not None:
        written = outcome.applied.inserted_rows
        for name, count in (
            (Decision.PENDING_APPLY, len(plan.proposals)),
            (Decision.APPLIED, written),
            (Decision.SKIP_EXISTING, len(outcome.applied.already_there)),
        ):
            if count and outcome.was_applied:
                counts[name.value] = counts.get(name.value, 0) + count
        total = sum(counts.values())
    else:
        if len(plan.proposals):
            counts[Decision.DRY_RUN.value] = len(plan.proposals)
        total = outcome.recorded.audit_rows if outcome.recorded else 0
    rows = sorted(counts.items()) if total else []
    return {
        "audit_rows": total,
        **({"batch_id": plan.batch_id} if total else {}),
        "audit_rows_by_decision": tables.table((("decision", ""), ("rows", "how many")), rows),
        **_skipped(outcome),
    }


def _applied(outcome: Outcome, plan: ProfilePlan, dashboard_url: str, location: str) -> Metadata:
    result = outcome.applied
    if result is None:
        return {"outcome": f"Skipped: {outcome.skipped_reason}", "inserted_rows": 0, **_skipped(outcome)}
    entries: Metadata = {"outcome": _applied_sentence(outcome), "inserted_rows": result.inserted_rows}
    if result.state is ApplyState.APPLIED:
        rows = [
            (
                row.trade_id,
                row.symbol,
                f"{row.side} {decimal_text_e9(row.qty_e9)}",
                row.price,
                tables.dollars(tables.worth(row.qty_e9, row.price)),
                row.outcome,
                row.order_id,
                row.exchange_order_id,
            )
            for row in rows_of(result.rows)
        ]
        columns = (
            ("trade", "the trade"),
            ("symbol", "as the ledger spells it"),
            ("quantity", "units of the asset"),
            ("price", "quote currency per unit"),
            ("usd", "US dollars"),
            ("outcome", "what became of the row"),
            ("backfill_order", "id of the row in orders"),
            ("exchange_order", "the order that proves it"),
        )
        rollback = {"ops": {"roll_back_batch": {"config": {"batch_id": result.batch_id, "confirm": False}}}}
        entries |= {
            "batch_id": result.batch_id,
            "digest": result.digest,
            "rows": tables.table(columns, rows),
            "applied_usd": proposed_usd(plan),
            "already_there_rows": len(result.already_there),
            "books_updated": result.books_updated,
            "take_it_back": _launchpad(
                "Open exit_backfill_rollback with this batch filled in (a preview until confirm is true)",
                launchpad_link(dashboard_url, location, "exit_backfill_rollback", rollback),
            ),
        }
    if result.superseded_batches:
        entries["closed_stuck_batches"] = ", ".join(result.superseded_batches)
    return {**entries, "left_open_usd": left_open_usd(plan), **_verification(outcome)}


def _applied_sentence(outcome: Outcome) -> str:
    result = outcome.applied
    if result is None:
        return ""
    if result.state is ApplyState.APPLIED:
        there = f"; {tables.counted(len(result.already_there), 'row')} there already" if result.already_there else ""
        worth = f" (${proposed_usd(outcome.plan):,.2f})" if outcome.plan is not None else ""
        return f"{tables.counted(result.inserted_rows, 'row')} inserted{worth}{there}."
    return f"Nothing to apply. {result.detail}".strip()


def _verification(outcome: Outcome) -> Metadata:
    entries: Metadata = {}
    if outcome.again is not None:
        entries["proposed_by_planning_again"] = len(outcome.again.proposals)
    if outcome.again_failure:
        entries["verification_failed"] = outcome.again_failure
    if outcome.verification is not None:
        rows = [
            (check.name, "holds" if check.passed else "FAILS", check.detail) for check in outcome.verification.checks
        ]
        entries["verification"] = tables.table((("statement", ""), ("result", ""), ("detail", "")), rows)
    return entries


def _launchpad(text: str, address: str) -> dg.MetadataValue[str]:
    return dg.MetadataValue.md(f"[{text}]({address})")


def apply_config(digest: str, *, reapply_reverted: bool) -> dict[str, Any]:
    """Return what the Launchpad of ``exit_backfill_apply`` takes."""
    config: dict[str, Any] = {"expected_digest": digest}
    if reapply_reverted:
        config["reapply_reverted"] = True
    return {"ops": {"reconciliation": {"config": config}}}


def as_yaml(value: Mapping[str, Any], indent: int = 0) -> str:
    """Return nested mappings of plain values as YAML; a JSON scalar is one in YAML too."""
    lines = ""
    for key, inner in value.items():
        pad = " " * indent
        if isinstance(inner, Mapping):
            lines += f"{pad}{key}:\n{as_yaml(inner, indent + 2)}"
        else:
            lines += f"{pad}{key}: {json.dumps(inner)}\n"
    return lines


def launchpad_link(
    dashboard_url: str, location: str, job: str, config: Mapping[str, Any], profile_id: str | None = None
) -> str:
    """Return the address of a Launchpad that is filled in, the partition too; launching it is still one click."""
    query = {"config": as_yaml(config)}
    if profile_id is not None:
        query |= {"tags[0][key]": "dagster/partition", "tags[0][value]": profile_id}
    return f"{dashboard_url}/locations/{location}/jobs/{job}/playground/setup?{urlencode(query)}"
