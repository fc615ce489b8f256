"""Jobs that are no planning: rollback, pause, resume, and the look at a batch that is stuck.

Dagster concept: jobs of one op each. What they did is an observation of ``applied_backfill_rows`` in the profile's partition, so
that it stands in the history of what was written. Not here: how any of it is done (``apply``).
"""

from collections.abc import Iterator
from typing import TypeAlias

import dagster as dg
from pydantic import Field

from recon_pipeline.apply import (
    RollbackResult,
    RollbackState,
    preview_rollback,
    rollback_batch,
    set_trading_state,
    verify_batch,
)
from recon_pipeline.apply.control import TradingState
from recon_pipeline.defs import catalogue as cat
from recon_pipeline.defs import remedies
from recon_pipeline.defs.presentation import RUNBOOK, Metadata
from recon_pipeline.defs.resources import Outside
from recon_pipeline.defs.tables import table
from recon_pipeline.ledger.batches import BatchState, read_batch
from recon_pipeline.ledger.database import READER, connect
from recon_pipeline.ledger.events import insert_events
from recon_pipeline.ledger.reads import ALL_TRADING

Event: TypeAlias = dg.AssetObservation | dg.Output[None]

_DONE = {RollbackState.PREVIEW, RollbackState.REVERTED}


class RollbackConfig(dg.Config):
    """Which batch, and whether it is meant."""

    batch_id: str = Field(description="RECON-BFILL-..., as applied_backfill_rows shows it.")
    confirm: bool = Field(default=False, description="false: show what would be taken back. true: take it back.")


@dg.op(out=dg.Out(dg.Nothing), description="Take an applied batch back, or show what that would do.")
def roll_back_batch(
    context: dg.OpExecutionContext, config: RollbackConfig, outside: dg.ResourceParam[Outside]
) -> Iterator[Event]:
    """Preview or carry out a rollback."""
    settings, batch_id = outside.settings(), config.batch_id.strip()
    if not batch_id:
        raise dg.Failure("Give the batch_id: applied_backfill_rows of the profile shows it.", allow_retries=False)
    if config.confirm:
        result = rollback_batch(
            settings.database_url,
            batch_id,
            run_id=context.run_id,
            now=outside.now(),
            owner=context.run_id,
            require_pause=settings.exit_backfill.require_pause,
        )
    else:
        result = preview_rollback(settings.database_url, batch_id)
    metadata = _rollback_metadata(result, confirmed=config.confirm)
    if result.profile_id:
        yield dg.AssetObservation(
            dg.AssetKey(cat.APPLIED_KEY),
            partition=result.profile_id,
            description=str(metadata["outcome"]),
            metadata=metadata,
        )
    context.log.info(str(metadata["outcome"]))
    if result.state not in _DONE:
        raise dg.Failure(str(metadata["outcome"]), metadata=metadata, allow_retries=False)
    yield dg.Output(None)


def _rollback_metadata(result: RollbackResult, *, confirmed: bool) -> Metadata:
    rows: list[tuple[object, ...]] = [
        (
            change.table,
            "/".join(change.key[1:]),
            change.trade_id,
            "taken back" if confirmed else "would be taken back",
            "",
        )
        for change in result.plan.changes
    ]
    rows += [
        (row.table, "/".join(row.key[1:]), row.trade_id, "stays", row.reason.value + _columns(row.changed_columns))
        for row in result.refused_rows
    ]
    columns = (("table", ""), ("row", "its key"), ("trade", "the trade"), ("outcome", ""), ("reason", "why it stays"))
    return {
        "outcome": _rollback_sentence(result),
        "batch_id": result.batch_id,
        "profile": result.profile_id,
        "state": result.state.value,
        "rows": table(columns, rows),
        "canceled_rows": len(result.canceled),
        "restored_rows": len(result.restored),
        "rows_that_stay": len(result.refused_rows),
        "runbook": RUNBOOK,
    }


def _columns(changed: tuple[str, ...]) -> str:
    return f" ({', '.join(changed)})" if changed else ""


def _rollback_sentence(result: RollbackResult) -> str:
    done = f"{len(result.canceled)} backfill rows canceled, {len(result.restored)} rows of the books restored"
    stays = f"; {len(result.refused_rows)} rows stay" if result.refused_rows else ""
    if result.state is RollbackState.PREVIEW:
        would = (
            f"{len(result.canceled)} backfill rows would be canceled, {len(result.restored)} rows of the books restored"
        )
        return f"Preview, nothing was changed: {would}{stays}. Launch again with confirm: true to do it."
    if result.state is RollbackState.REVERTED:
        return f"{done}. {result.detail}".strip()
    if result.state is RollbackState.PARTLY_REVERTED:
        return f"Only partly taken back: {done}{stays}, each with its reason."
    if result.state is RollbackState.NOTHING_REVERTED:
        return f"Nothing was taken back{stays}."
    explained = remedies.for_refusal(result.refused_reason)
    return f"Nothing was taken back: {result.refused_reason}: {result.detail or explained} ({explained})"


@dg.job(
    description="Takes an applied batch back by its `batch_id`: backfill rows are set to canceled, books restored, nothing is "
    f"deleted. **A preview unless `confirm: true`.** Runbook: `{cat.RUNBOOK}`.",
    tags={"recon/mode": "rollback"},
    config={"ops": {"roll_back_batch": {"config": {"batch_id": "", "confirm": False}}}},
)
def exit_backfill_rollback() -> None:
    """Roll a batch back."""
    roll_back_batch()


class TradingConfig(dg.Config):
    """Whose trading, and why."""

    scope: str = Field(description="A profile, or 'all'.")
    reason: str = Field(description="Why; bots and people read it.")


def _set_trading(
    context: dg.OpExecutionContext, config: TradingConfig, outside: Outside, *, state: str, event: str
) -> None:
    settings = outside.settings()
    scope, reason = config.scope.strip(), config.reason.strip()
    if not scope or not reason:
        raise dg.Failure("Give a scope (a profile, or 'all') and a reason.", allow_retries=False)
    with outside.ledger(settings) as ledger:
        profiles = {str(row["profile_id"]) for row in ledger.profiles()}
    if scope != ALL_TRADING and scope not in profiles:
        raise dg.Failure(
            f"There is no profile {scope!r}: the scope is a profile of the table profiles, or 'all'.",
            allow_retries=False,
        )
    source = f"dagster run {context.run_id[:8]}"
    result = set_trading_state(settings.database_url, scope, state, source, reason, outside.now())
    _announce(context, outside, event, result)
    context.add_output_metadata(
        {
            "scope": result.scope,
            "state": result.state,
            "before": result.previous or "no row",
            "since": result.since.isoformat(timespec="seconds"),
            "reason": result.reason,
            "source": result.source,
        }
    )
    what = "is now" if result.changed else "was already"
    context.log.info("trading of %s %s %s: %s", result.scope, what, result.state, result.reason)


def _announce(context: dg.OpExecutionContext, outside: Outside, event: str, result: TradingState) -> None:
    with connect(outside.settings().database_url, READER, "recon trading control") as connection:
        insert_events(
            connection,
            [
                {
                    "type": event,
                    "severity": "INFO",
                    "message": f"Trading of {result.scope} is {result.state}: {result.reason}",
                    "profile_id": None if result.scope == ALL_TRADING else result.scope,
                    "run_id": context.run_id,
                    "details": {"scope": result.scope, "state": result.state, "before": result.previous},
                }
            ],
        )


@dg.op(description="Set trading to PAUSED.")
def pause(context: dg.OpExecutionContext, config: TradingConfig, outside: dg.ResourceParam[Outside]) -> None:
    """Pause."""
    _set_trading(context, config, outside, state="PAUSED", event="trading_paused")


@dg.op(description="Set trading to RUNNING.")
def resume(context: dg.OpExecutionContext, config: TradingConfig, outside: dg.ResourceParam[Outside]) -> None:
    """Resume."""
    _set_trading(context, config, outside, state="RUNNING", event="trading_resumed")


@dg.job(
    description="Pauses the bots of a profile, or of `all`: an apply and a rollback want it. Existing orders stay as they are.",
    config={"ops": {"pause": {"config": {"scope": "all", "reason": ""}}}},
)
def pause_trading() -> None:
    """Pause trading."""
    pause()


@dg.job(
    description="Resumes the bots of a profile, or of `all`. A profile stays paused as long as its own row or that of all "
    "says so.",
    config={"ops": {"resume": {"config": {"scope": "all", "reason": ""}}}},
)
def resume_trading() -> None:
    """Resume trading."""
    resume()


class StuckBatchConfig(dg.Config):
    """Which batch."""

    batch_id: str = Field(description="The batch that is in PENDING_APPLY without an outcome.")


@dg.op(
    out=dg.Out(dg.Nothing),
    description="Look at a batch in PENDING_APPLY: say what it left, raise an event, and fail as long as it is stuck.",
)
def verify_stuck_batch(
    context: dg.OpExecutionContext, config: StuckBatchConfig, outside: dg.ResourceParam[Outside]
) -> Iterator[Event]:
    """Verify and alert."""
    settings = outside.settings()
    with connect(settings.database_url, READER, "recon stuck batch") as connection:
        batch = read_batch(connection, config.batch_id.strip())
    if batch is None:
        raise dg.Failure(f"There is no batch {config.batch_id!r}.", allow_retries=False)
    verification = verify_batch(settings.database_url, batch["batch_id"])
    rows = [(check.name, "holds" if check.passed else "FAILS", check.detail) for check in verification.checks]
    metadata = {
        "batch_id": batch["batch_id"],
        "profile": batch["profile_id"],
        "state": batch["state"],
        "digest": batch["digest"],
        "verification": table((("statement", ""), ("result", ""), ("detail", "")), rows),
        "runbook": RUNBOOK,
    }
    if batch["state"] != BatchState.PENDING_APPLY.value:
        context.log.info("batch %s is %s by now", batch["batch_id"], batch["state"])
        yield dg.Output(None, metadata=metadata)
        return
    what = (
        f"Batch {batch['batch_id']} of profile {batch['profile_id']} was announced and has no outcome: its run ended in between. "
        "Launch a dry run of the profile, then exit_backfill_apply with its digest: it completes or closes the batch."
    )
    with connect(settings.database_url, READER, "recon stuck batch") as connection:
        insert_events(
            connection,
            [
                {
                    "type": "batch_stuck",
                    "severity": "ERROR",
                    "message": what,
                    "profile_id": batch["profile_id"],
                    "account_id": batch["account_id"],
                    "run_id": context.run_id,
                    "details": {"batch_id": batch["batch_id"], "digest": batch["digest"]},
                }
            ],
        )
    yield dg.AssetObservation(
        dg.AssetKey(cat.APPLIED_KEY), partition=batch["profile_id"], description=what, metadata=metadata
    )
    raise dg.Failure(what, metadata=metadata, allow_retries=False)


@dg.job(
    description="Looks at a batch that is stuck in PENDING_APPLY and alerts. Writes nothing but an event. Launched by a sensor."
)
def exit_backfill_stuck_batch() -> None:
    """Look at a stuck batch."""
    verify_stuck_batch()
