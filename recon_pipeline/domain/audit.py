"""The rows that a plan becomes: inserts for ``orders`` and records for ``reconciliation_backfill_audit``.

What does not belong here: writing them (``recon_pipeline.apply``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pandas as pd

from recon_pipeline.domain.frames import NO_TIME, rows_of
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.plan import ProfilePlan
from recon_pipeline.domain.quantities import from_e9
from recon_pipeline.domain.terms import EXIT, Decision, Reason

AuditRecord = dict[str, Any]
OrderRecord = dict[str, Any]


def order_records(plan: ProfilePlan) -> list[OrderRecord]:
    """The backfill rows of a plan in the columns of ``orders``: exact Decimals, ``timestamp`` in ms, aware ``filled_at``."""
    return [
        {
            "user_id": row.user_id,
            "profile_id": row.profile_id,
            "order_id": row.order_id,
            "symbol": row.symbol,
            "type": "market",
            "side": row.side,
            "qty": from_e9(row.qty_e9),
            "quantity": from_e9(row.qty_e9),
            "price": row.price,
            "status": "filled",
            "timestamp": int(row.filled_at_ms),
            "filled_at": instant(row.filled_at_ms),
            "trade_id": row.trade_id,
            "action": EXIT,
            "source": "BOT",
            "sub_tag": row.sub_tag or None,
        }
        for row in rows_of(plan.proposals)
    ]


def proposal_audit_records(
    plan: ProfilePlan, decision: Decision, *, applied_at: datetime | None = None
) -> list[AuditRecord]:
    """One audit record per proposal, with ``decision`` DRY_RUN, PENDING_APPLY or APPLIED."""
    reason = Reason.INSERTED if decision is Decision.APPLIED else Reason.ELIGIBLE
    return [
        {
            "batch_id": plan.batch_id,
            "profile_id": row.profile_id,
            "symbol": row.symbol,
            "trade_id": row.trade_id,
            "exchange_order_id": row.exchange_order_id,
            "exchange_client_order_id": row.exchange_client_order_id or None,
            "backfill_order_id": row.order_id,
            "filled_qty": from_e9(row.qty_e9),
            "filled_price": row.price,
            "filled_at": instant(row.filled_at_ms),
            "dry_run": decision is Decision.DRY_RUN,
            "decision": decision.value,
            "reason": reason.value,
            "metadata": {
                "action": EXIT,
                "status": "filled",
                "matchedBy": row.matched_by,
                "exchangeSubTag": row.sub_tag or None,
            },
            "applied_at": applied_at,
        }
        for row in rows_of(plan.proposals)
    ]


def decision_audit_records(plan: ProfilePlan, *, dry_run: bool) -> list[AuditRecord]:
    """One audit record per decision that proposes nothing: NO_GO first, then SKIP_*, each in the plan's order."""
    no_go = plan.decisions["decision"] == Decision.NO_GO.value
    ordered = pd.concat([plan.decisions[no_go], plan.decisions[~no_go]])
    return [
        {
            "batch_id": plan.batch_id,
            "profile_id": row.profile_id,
            "symbol": row.symbol,
            "trade_id": row.trade_id,
            "exchange_order_id": row.exchange_order_id or None,
            "exchange_client_order_id": row.exchange_client_order_id or None,
            "backfill_order_id": row.backfill_order_id or None,
            "filled_qty": _quantity(row.qty_e9) if row.backfill_order_id else None,
            "filled_price": row.price,
            "filled_at": instant(row.filled_at_ms),
            "dry_run": dry_run,
            "decision": row.decision,
            "reason": row.reason,
            "metadata": row.metadata,
            "applied_at": None,
        }
        for row in rows_of(ordered)
    ]


def _quantity(units: int) -> Decimal:
    return from_e9(units)


def instant(ms: int) -> datetime | None:
    """An aware UTC datetime of ``ms``; None for NO_TIME."""
    return None if ms == NO_TIME else datetime.fromisoformat(iso_ms(ms)).astimezone(UTC)
