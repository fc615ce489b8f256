"""The one-time cleanup of old stale orders: a preview, then the same with its digest, then what a person decides.

Dagster concept: a job of one op. What it shows is metadata of its output; what it wrote stands in the history of
``order_status_updates``, profile by profile. Unlike the script of the source it asks the exchange before it marks anything. Not
here: how any of it is done (``order_status.syncing``) and how the rows look (``order_status_presentation``).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import dagster as dg
import pandas as pd
from pydantic import Field

from recon_pipeline.defs import cycle_tables, presentation, tables
from recon_pipeline.defs import order_status_catalogue as names
from recon_pipeline.defs import order_status_tables as own
from recon_pipeline.defs.order_status_check import stale_evaluation
from recon_pipeline.defs.order_status_presentation import RUNBOOK, metadata_of
from recon_pipeline.defs.order_status_run import SyncAsk, SyncOutcome, read_remembered, run_order_status
from recon_pipeline.defs.presentation import Metadata
from recon_pipeline.defs.reporting import LOCATION, fail_naming, refuse
from recon_pipeline.defs.resources import Outside
from recon_pipeline.domain.order_answers import Decision
from recon_pipeline.domain.order_parity import RowKey
from recon_pipeline.domain.terms import UNKNOWN_STATUS
from recon_pipeline.order_status.syncing import DigestChangedError, SyncScope

Event: TypeAlias = dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.Output[None]

_DIGEST_LENGTH: Final = 64


class CleanupConfig(dg.Config):
    """What is cleaned up, and whether it is meant."""

    profile_ids: list[str] = Field(default_factory=list, description="Profiles to look at; empty: all.")
    limit: int = Field(
        default=0, description="Orders to ask about at most, the oldest first; 0: RECON_ORDER_STATUS_BATCH_SIZE."
    )
    confirm: bool = Field(
        default=False, description="false: ask the exchange and show what would be written. true: write it."
    )
    expected_digest: str = Field(
        default="", description="With confirm: the digest that the preview has shown. Anything else is refused."
    )
    cancel_unknown: list[str] = Field(
        default_factory=list,
        description="Ids of rows in orders with status unknown that you have decided were never placed. The exchange is asked "
        "once more; only what it still does not know is canceled, and never a row that executed something.",
    )
    decided_by: str = Field(default="", description="With cancel_unknown: who decides. Stands in recon.corrections.")
    reason: str = Field(default="", description="With cancel_unknown: why. Stands in recon.corrections.")


@dg.op(
    name=names.CLEANUP_OP,
    out=dg.Out(dg.Nothing),
    description="Ask the exchange about the stale orders older than RECON_ORDER_UNKNOWN_AFTER_HOURS, show what would become of "
    "them, and write it only with confirm and the digest of that preview.",
)
def clean_up_stale_orders(
    context: dg.OpExecutionContext, config: CleanupConfig, outside: dg.ResourceParam[Outside]
) -> Iterator[Event]:
    """Preview, or carry out."""
    settings = outside.settings()
    ask = _ask(context, config, outside)
    try:
        outcome = run_order_status(outside, ask)
    except DigestChangedError as error:
        raise refuse(
            f"Nothing was written: what the exchange and the ledger say has changed since the preview ({error}). Launch the "
            "preview again and read it."
        ) from error
    config_of_next = _next_config(config, outcome)
    metadata = _metadata(outcome, config, dashboard_url=settings.dashboard_url, next_config=config_of_next)
    context.log.info(str(metadata["outcome"]))
    for profile_id, profile in outcome.result.profiles.items() if config.confirm else ():
        if profile_id in outcome.changed:
            shown = metadata_of(outcome, profile, names.STALE_KEY, dashboard_url=settings.dashboard_url)
            yield dg.AssetMaterialization(dg.AssetKey(names.STALE_KEY), partition=profile_id, metadata=shown)
        if profile.applied:
            shown = metadata_of(outcome, profile, names.UPDATES_KEY, dashboard_url=settings.dashboard_url)
            yield dg.AssetMaterialization(dg.AssetKey(names.UPDATES_KEY), partition=profile_id, metadata=shown)
    if config.confirm:
        yield stale_evaluation(outside)
    yield dg.Output(None, metadata=metadata)
    failures = {profile_id: outcome.failures(profile) for profile_id, profile in outcome.result.profiles.items()}
    fail_naming(failures, of=len(failures), skipped=0)


def _ask(context: dg.OpExecutionContext, config: CleanupConfig, outside: Outside) -> SyncAsk:
    """Return what is asked for.

    :raises Failure: it can't be meant so
    """
    settings = outside.settings()
    digest = config.expected_digest.strip()
    if config.limit < 0:
        raise refuse("limit is a number of orders, or 0 for RECON_ORDER_STATUS_BATCH_SIZE.")
    if config.confirm and not digest:
        raise refuse(
            "confirm wants the digest of the preview: launch this without confirm, read it, and give expected_digest."
        )
    if digest and (len(digest) != _DIGEST_LENGTH or set(digest) - set("0123456789abcdef")):
        raise refuse("expected_digest is no digest: 64 characters of 0-9 and a-f, as the preview shows it.")
    with outside.ledger(settings) as ledger:
        known = [str(row["profile_id"]) for row in ledger.profiles()]
    wanted = [profile for one in config.profile_ids if (profile := one.strip())]
    if strangers := sorted(set(wanted) - set(known)):
        raise refuse(f"There is no profile {', '.join(strangers)} in the table profiles.")
    profiles = tuple(dict.fromkeys(wanted)) or tuple(known)
    return SyncAsk(
        profile_ids=profiles,
        run_id=context.run_id,
        scope=SyncScope.OLD,
        dry_run=not config.confirm,
        limit=config.limit or None,
        expected_digest=digest if config.confirm else None,
        decided=_decided(config, read_remembered(settings.database_url, profiles)),
    )


def _decided(config: CleanupConfig, remembered: pd.DataFrame) -> dict[RowKey, Decision]:
    """Return the rows that a person has decided about.

    :param remembered: ORDER_CHECKS of the profiles
    :raises Failure: an id is not that of one row that waits for a decision, or nobody says who decided and why
    """
    wanted = dict.fromkeys(one.strip() for one in config.cancel_unknown if one.strip())
    if not wanted:
        if config.decided_by.strip() or config.reason.strip():
            raise refuse("decided_by and reason belong to cancel_unknown: give the ids of the rows that are decided.")
        return {}
    decided_by, reason = config.decided_by.strip(), config.reason.strip()
    if not decided_by or not reason:
        raise refuse("cancel_unknown wants decided_by (who) and reason (why): both stand in recon.corrections.")
    unknown = remembered[remembered["status"] == UNKNOWN_STATUS]
    decided: dict[RowKey, Decision] = {}
    for order_id in wanted:
        owners = sorted(unknown[unknown["order_id"] == order_id]["profile_id"])
        if not owners:
            raise refuse(
                f"Row {order_id} is not remembered as unknown: only rows whose status is unknown are decided here. "
                f"{names.STALE_KEY} of its profile shows them; launch order_status_sync for the profile if it is new."
            )
        if len(owners) > 1:
            raise refuse(f"Row {order_id} is in several profiles ({', '.join(owners)}): give profile_ids.")
        decided[owners[0], order_id] = Decision(decided_by=decided_by, reason=reason)
    return decided


def _next_config(config: CleanupConfig, outcome: SyncOutcome) -> Mapping[str, Any]:
    """Return the configuration that carries out what this preview shows."""
    meant: dict[str, Any] = {
        "profile_ids": list(config.profile_ids),
        "limit": config.limit,
        "confirm": True,
        "expected_digest": outcome.result.digest,
    }
    if config.cancel_unknown:
        meant |= {
            "cancel_unknown": list(config.cancel_unknown),
            "decided_by": config.decided_by,
            "reason": config.reason,
        }
    return {"ops": {names.CLEANUP_OP: {"config": meant}}}


def _metadata(
    outcome: SyncOutcome, config: CleanupConfig, *, dashboard_url: str, next_config: Mapping[str, Any]
) -> Metadata:
    result = outcome.result
    profiles = list(result.profiles.values())
    wanted = sum(len(profile.changes) for profile in profiles)
    entries: Metadata = {"outcome": _sentence(outcome, wanted, config)}
    if wanted and not config.confirm:
        address = presentation.launchpad_link(dashboard_url, LOCATION, names.CLEANUP_JOB, next_config)
        entries |= {
            "digest": result.digest,
            "carry_it_out": dg.MetadataValue.md(
                f"[Open {names.CLEANUP_JOB} with this digest filled in, to write it]({address})"
            ),
            "carry_out_config": dg.MetadataValue.md(f"```yaml\n{presentation.as_yaml(next_config)}```"),
        }
    if wanted:
        stages = [own.as_stage(profile, dry_run=result.dry_run) for profile in profiles]
        entries["corrections"] = cycle_tables.corrections_table(stages)
    if findings := [finding for profile in profiles for finding in profile.findings]:
        entries["findings"] = cycle_tables.findings_table(findings)
    left = _stale_orders(outcome)
    if len(left):
        entries |= {
            "orders": own.orders_table(left, outcome.policy, outcome.at_ms, with_profile=True),
            "answers": own.answers_table(left),
        }
    if result.accounts:
        entries["accounts"] = own.accounts_table(list(result.accounts.values()))
    return {
        **entries,
        **{name: int(count) for name, count in result.counts.items()},
        "left_over": result.left_over,
        "api_calls": result.api_calls,
        "dry_run": result.dry_run,
        "runbook": RUNBOOK,
    }


def _stale_orders(outcome: SyncOutcome) -> pd.DataFrame:
    """Return ORDER_CHECKS of everything stale that is left, of all profiles."""
    frames = [stale for profile in outcome.result.profiles.values() if len(stale := outcome.stale(profile))]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _sentence(outcome: SyncOutcome, wanted: int, config: CleanupConfig) -> str:
    result = outcome.result
    counts = result.counts
    asked = f"{tables.counted(counts.get('checked', 0), 'order')} asked about with {tables.counted(result.api_calls, 'call')}"
    aside = (
        (counts.get("held", 0), "held back: see findings."),
        (counts.get("postponed", 0), "postponed: their rows moved a moment ago."),
        (counts.get("failed", 0), "had no answer that counts and stay as they are."),
        (result.left_over, "more are left: launch it again."),
    )
    rest = "".join(f" {count:,} {what}" for count, what in aside if count)
    if config.confirm:
        written = sum(len(profile.applied) for profile in result.profiles.values())
        return f"{asked}; {written} of {tables.counted(wanted, 'row')} written.{rest}"
    if not wanted:
        return f"Preview: {asked}; nothing is to be written.{rest}"
    return (
        f"Preview, nothing was changed: {asked}; {tables.counted(wanted, 'row')} would be written. Launch again with "
        f"confirm: true and expected_digest to write them.{rest}"
    )


def _default(profile_ids: Sequence[str] = ()) -> Mapping[str, Any]:
    return {
        "ops": {
            names.CLEANUP_OP: {
                "config": {
                    "profile_ids": list(profile_ids),
                    "limit": 0,
                    "confirm": False,
                    "expected_digest": "",
                    "cancel_unknown": [],
                    "decided_by": "",
                    "reason": "",
                }
            }
        }
    }


@dg.job(
    name=names.CLEANUP_JOB,
    description="**Cleans up stale orders** older than RECON_ORDER_UNKNOWN_AFTER_HOURS: asks the exchange about each, corrects "
    "those that it knows, marks those that it does not know `unknown`. With `cancel_unknown` a person cancels orders that are "
    f"unknown. **A preview unless `confirm: true`** and the digest that the preview shows. Runbook: `{names.RUNBOOK}`.",
    tags={"recon/mode": "order_status_cleanup"},
    config=dict(_default()),
)
def stale_order_cleanup() -> None:
    """Clean up."""
    clean_up_stale_orders()
