"""Which stages a run leaves behind as snapshots, and a plan's inputs back from them.

Here: reading and plan of a shard as files, and the reading from the files. Not here: the files (``snapshots``) and
planning (``engine``).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from enum import Enum
from typing import Any, Final

import fsspec
import pandas as pd

from recon_pipeline.defs.snapshots import RunSnapshots, SnapshotError
from recon_pipeline.domain.frames import (
    CONSUMPTION,
    DECISIONS,
    EVIDENCE,
    EXCHANGE_ORDERS,
    LIFECYCLE_ROWS,
    POSITIONS,
    PROFILES,
    PROPOSALS,
    SLICES,
    TRADES,
    Schema,
)
from recon_pipeline.domain.plan import ExitBackfillInputs, ProfilePlan
from recon_pipeline.domain.policy import ExitBackfillPolicy
from recon_pipeline.domain.terms import PositionGate
from recon_pipeline.engine import ShardPlan, ShardReading
from recon_pipeline.exchange.gateway import EXECUTIONS

PROFILES_STAGE: Final = "profiles"
LIFECYCLE_STAGE: Final = "lifecycle_rows"
ORDERS_STAGE: Final = "exchange_orders"
EXECUTIONS_STAGE: Final = "executions"
POSITIONS_STAGE: Final = "exchange_positions"
CONSUMPTION_STAGE: Final = "consumption"
SLICES_STAGE: Final = "open_trade_slices"
TRADES_STAGE: Final = "trades"
PROPOSALS_STAGE: Final = "proposed_backfill_rows"
DECISIONS_STAGE: Final = "decisions"
EVIDENCE_STAGE: Final = "exchange_fill_evidence"


def save_reading(snapshots: RunSnapshots, reading: ShardReading, policy: ExitBackfillPolicy) -> dict[str, str]:
    """Write everything that the plans depend on; return the places by stage."""
    inputs = reading.inputs
    executions = [account.executions for account in reading.accounts.values() if len(account.executions)]
    places = _write(
        snapshots,
        {
            PROFILES_STAGE: (PROFILES, inputs.profiles),
            LIFECYCLE_STAGE: (LIFECYCLE_ROWS, inputs.lifecycle_rows),
            ORDERS_STAGE: (EXCHANGE_ORDERS, inputs.exchange_orders),
            EXECUTIONS_STAGE: (EXECUTIONS, pd.concat(executions) if executions else EXECUTIONS.empty()),
            POSITIONS_STAGE: (POSITIONS, inputs.positions),
            CONSUMPTION_STAGE: (CONSUMPTION, inputs.consumption),
        },
    )
    _write_document(
        snapshots,
        {
            "as_of_ms": reading.as_of_ms,
            "policy": asdict(policy),
            "positions_unknown": sorted(inputs.positions_unknown),
            "certificates": {name: asdict(account.certificate) for name, account in reading.accounts.items()},
            "failures": {profile: asdict(failure) for profile, failure in reading.failures.items()},
        },
    )
    return places


def save_plan(snapshots: RunSnapshots, plan: ShardPlan) -> dict[str, str]:
    """Write what was planned; return the places by stage."""
    plans = list(plan.plans.values())
    evidence = _joined(plans, "evidence", EVIDENCE)
    return _write(
        snapshots,
        {
            SLICES_STAGE: (SLICES, _joined(plans, "slices", SLICES)),
            TRADES_STAGE: (TRADES, _joined(plans, "trades", TRADES)),
            PROPOSALS_STAGE: (PROPOSALS, _joined(plans, "proposals", PROPOSALS)),
            DECISIONS_STAGE: (DECISIONS, _joined(plans, "decisions", DECISIONS)),
            # The evidence of an account is part of each of its profiles' plans.
            EVIDENCE_STAGE: (EVIDENCE, evidence.drop_duplicates(["account_id", "order_id", "profile_id", "trade_id"])),
        },
    )


def load_reading(snapshots: RunSnapshots) -> tuple[ExitBackfillInputs, ExitBackfillPolicy, int]:
    """Return inputs, policy and instant of a run: planning them again gives its plans.

    :raises SnapshotError: a file is missing or can't be read
    """
    document = _read_document(snapshots)
    policy = dict(document["policy"])
    for name in ("dust_abs_qty", "dust_rel", "dust_max_notional_usd", "crypto_fee_bps"):
        policy[name] = Decimal(policy[name])
    policy["profile_allowlist"] = frozenset(policy["profile_allowlist"])
    policy["position_gate"] = PositionGate(policy["position_gate"])
    inputs = ExitBackfillInputs(
        profiles=snapshots.read(PROFILES_STAGE, PROFILES),
        lifecycle_rows=snapshots.read(LIFECYCLE_STAGE, LIFECYCLE_ROWS),
        exchange_orders=snapshots.read(ORDERS_STAGE, EXCHANGE_ORDERS),
        positions=snapshots.read(POSITIONS_STAGE, POSITIONS),
        consumption=snapshots.read(CONSUMPTION_STAGE, CONSUMPTION),
        positions_unknown=frozenset(document["positions_unknown"]),
    )
    return inputs, ExitBackfillPolicy(**policy), int(document["as_of_ms"])


def _write(snapshots: RunSnapshots, frames: Mapping[str, tuple[Schema, pd.DataFrame]]) -> dict[str, str]:
    return {stage: snapshots.write(stage, schema, frame) for stage, (schema, frame) in frames.items()}


def _joined(plans: list[ProfilePlan], name: str, schema: Schema) -> pd.DataFrame:
    frames: list[pd.DataFrame] = [frame for plan in plans if len(frame := getattr(plan, name))]
    return pd.concat(frames, ignore_index=True) if frames else schema.empty()


def _document_url(snapshots: RunSnapshots) -> str:
    return f"{snapshots.url}/reading.json"


def _write_document(snapshots: RunSnapshots, document: Mapping[str, Any]) -> None:
    try:
        with fsspec.open(_document_url(snapshots), "w") as file:
            json.dump(document, file, default=_as_json, indent=1)
    except OSError as error:
        raise SnapshotError(f"{_document_url(snapshots)} can't be written: {error}") from error


def _read_document(snapshots: RunSnapshots) -> dict[str, Any]:
    try:
        with fsspec.open(_document_url(snapshots), "r") as file:
            document: dict[str, Any] = json.load(file)
    except (OSError, ValueError) as error:
        raise SnapshotError(f"{_document_url(snapshots)} can't be read: {error}") from error
    return document


def _as_json(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in a snapshot")
