"""A plan as a document: what ``recon.batches`` keeps, so that any batch can be explained and verified later.

Exact decimals and instants are text. Pure; what does not belong here: writing it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pandas as pd

from recon_pipeline.domain.frames import DECISIONS as DECISION_COLUMNS
from recon_pipeline.domain.frames import EVIDENCE as EVIDENCE_COLUMNS
from recon_pipeline.domain.frames import NO_TIME, Schema
from recon_pipeline.domain.frames import PROPOSALS as PROPOSAL_COLUMNS
from recon_pipeline.domain.frames import SLICES as SLICE_COLUMNS
from recon_pipeline.domain.frames import TRADES as TRADE_COLUMNS
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.plan import ProfilePlan, check_conservation, proposals_digest
from recon_pipeline.domain.quantities import decimal_text, decimal_text_e9

KIND: Final = "exit_backfill"
VERSION: Final = 1


def check_plan(plan: ProfilePlan) -> dict[str, str]:
    """The plan's conservation totals.

    :raises ValueError: the plan was skipped, was changed after it was made, or lacks the slice of a trade it closes
    :raises ConservationError: it does not add up
    """
    if not plan.attempted:
        raise ValueError(f"profile {plan.profile_id} was skipped ({plan.skipped_reason}): there is no plan to record")
    if not plan.batch_id:
        raise ValueError(f"the plan of profile {plan.profile_id} has no batch id")
    if proposals_digest(plan.proposals) != plan.digest:
        raise ValueError(f"the proposals of batch {plan.batch_id} were changed after the plan was made: digest differs")
    strangers = set(plan.proposals["profile_id"]) - {plan.profile_id}
    if strangers:
        raise ValueError(f"the plan of profile {plan.profile_id} proposes rows for {', '.join(sorted(strangers))}")
    unknown = set(plan.proposals["trade_id"]) - set(plan.slices["trade_id"])
    if unknown:
        raise ValueError(f"batch {plan.batch_id} closes trades without their slices: {', '.join(sorted(unknown))}")
    if plan.proposals["order_id"].duplicated().any():
        raise ValueError(f"batch {plan.batch_id} proposes a row twice")
    return check_conservation(plan.trades, plan.evidence)


def plan_document(plan: ProfilePlan) -> dict[str, Any]:
    """The plan as JSON: proposals, decisions and trades, the slices they were made from, the evidence about them."""
    cited = plan.evidence["order_id"].isin(plan.proposals["exchange_order_id"])
    about = cited | (plan.evidence["profile_id"] == plan.profile_id)
    touched = set(plan.proposals["trade_id"]) | set(plan.decisions["trade_id"])
    return {
        "version": VERSION,
        "profile_id": plan.profile_id,
        "user_id": plan.user_id,
        "account_id": plan.account_id,
        "batch_id": plan.batch_id,
        "digest": plan.digest,
        "open_trade_candidates": plan.open_trade_candidates,
        "proposals": _rows(plan.proposals, PROPOSAL_COLUMNS),
        "decisions": _rows(plan.decisions, DECISION_COLUMNS),
        "trades": _rows(plan.trades, TRADE_COLUMNS),
        "slices": _rows(plan.slices[plan.slices["trade_id"].isin(touched)], SLICE_COLUMNS),
        "evidence": _rows(plan.evidence[about], EVIDENCE_COLUMNS),
    }


def tuples(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows of a frame, one value per column by the column's name."""
    return frame.itertuples(index=False)


def _rows(frame: pd.DataFrame, schema: Schema) -> list[dict[str, Any]]:
    """Rows by column name; ``qty_e9`` becomes ``qty`` and ``filled_at_ms`` becomes ``filled_at``, both as text."""
    names: list[tuple[str, str, str]] = [(c.name, c.type, _public(c.name)) for c in schema.columns]
    columns = [frame[name].tolist() for name, _, _ in names]
    return [
        {public: _value(value, kind) for (_, kind, public), value in zip(names, values, strict=True)}
        for values in zip(*columns, strict=True)
    ]


def _public(name: str) -> str:
    return name.removesuffix("_e9").removesuffix("_ms")


def _value(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "quantity":
        return decimal_text_e9(int(value))
    if kind == "instant":
        return None if int(value) == NO_TIME else iso_ms(int(value))
    if kind in {"price", "money"}:
        return decimal_text(value)
    if kind == "bool":
        return bool(value)
    if kind == "count":
        return int(value)
    return value
