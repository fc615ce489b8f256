"""A run of the exit backfill: what was asked, its events, and the jobs that launch it.

Dagster concept: the events of a multi-asset step. ``shard_run`` gives outcomes; each profile's materializations and checks are
yielded as they come, so that one profile's failure leaves the others materialized; at its end the step fails and names the
profiles that did. Whether a run applies is decided by its selection: only a run that selects ``applied_backfill_rows`` does.
Not here: the step itself (``reconciliation``), what an asset is (``catalogue``) and how an outcome looks (``presentation``).
"""

from collections.abc import Iterator, Sequence
from typing import Final

import dagster as dg
from pydantic import Field

from recon_pipeline.defs import catalogue as cat
from recon_pipeline.defs import presentation
from recon_pipeline.defs.checks import judge
from recon_pipeline.defs.reporting import (
    SCHEDULED,
    TRIGGER_TAG,
    Event,
    evaluations,
    fail_naming,
    location_of,
    refuse,
)
from recon_pipeline.defs.resources import Outside
from recon_pipeline.defs.shard_run import Ask, Outcome, Step, run_shard

OP: Final = "reconciliation"
"""The one step that makes every asset; its name is in every launch configuration."""
_DIGEST_LENGTH: Final = 64


class ExitBackfillConfig(dg.Config):
    """What an operator may say when launching."""

    expected_digest: str | None = Field(
        default=None,
        description="Apply only: the digest of the plan that was read (metadata 'digest' of proposed_backfill_rows). Another "
        "plan is refused.",
    )
    expected_digests: dict[str, str] = Field(
        default_factory=dict,
        description="Apply of several profiles: the reviewed digest of each, by profile. Profiles without one are refused.",
    )
    reapply_reverted: bool = Field(
        default=False,
        description="Propose again what a rollback took back. Give it to the dry run and to the apply alike: it is part of "
        "the digest.",
    )

    def digests(self, profile_ids: Sequence[str]) -> dict[str, str]:
        """Return the reviewed digest of each profile.

        :raises Failure: it is not clear which digest belongs to which profile
        """
        single = (self.expected_digest or "").strip()
        several = {profile: digest.strip() for profile, digest in self.expected_digests.items() if digest.strip()}
        if single and several:
            raise refuse("Give expected_digest or expected_digests, not both.")
        if single and len(profile_ids) != 1:
            raise refuse(
                f"One digest can't be that of {len(profile_ids)} profiles: give expected_digests, by profile, or launch one."
            )
        if strangers := sorted(set(several) - set(profile_ids)):
            raise refuse(f"expected_digests names profiles that are not part of this run: {', '.join(strangers)}.")
        digests = {profile_ids[0]: single} if single else several
        for profile, digest in digests.items():
            if len(digest) != _DIGEST_LENGTH or set(digest) - set("0123456789abcdef"):
                raise refuse(
                    f"The digest given for {profile} is no digest: 64 characters of 0-9 and a-f, as the dry run shows it."
                )
        return digests


def exit_backfill_events(
    context: dg.AssetExecutionContext, config: ExitBackfillConfig, outside: Outside
) -> Iterator[Event]:
    """Read the exchange and the ledger, plan, and record the plan (dry run) or apply it (apply).

    :raises Failure: at the end, naming the profiles that failed
    """
    ask = _ask(context, config)
    report = _Report(context, outside)
    for outcome in run_shard(outside, ask):
        yield from report.events(outcome)
    yield from report.checks()
    report.finish()


def _ask(context: dg.AssetExecutionContext, config: ExitBackfillConfig) -> Ask:
    selected = {key.to_user_string() for key in context.selected_asset_keys}
    profiles = tuple(context.partition_keys)
    applying = cat.APPLIED_KEY in selected
    scheduled = context.run.tags.get(TRIGGER_TAG) == SCHEDULED
    digests = config.digests(profiles)
    if digests and not applying:
        raise refuse("A digest is given, but this run only proposes: launch exit_backfill_apply.")
    checks = {key.name for key in context.selected_asset_check_keys}
    return Ask(
        profile_ids=profiles,
        run_id=context.run.run_id,
        apply=applying,
        record=cat.AUDIT_KEY in selected or scheduled,
        only_changes=scheduled,
        fingerprint=cat.LEDGER_UNCHANGED in checks,
        reapply_reverted=config.reapply_reverted,
        digests=digests,
    )


class _Report:
    """Logs outcomes as they come and remembers what the run's end has to say."""

    def __init__(self, context: dg.AssetExecutionContext, outside: Outside) -> None:
        self._context = context
        self._selected = {key.to_user_string() for key in context.selected_asset_keys}
        self._dashboard = outside.settings().dashboard_url
        self._location = location_of(context)
        self._last: dict[str, Outcome] = {}

    def events(self, outcome: Outcome) -> Iterator[Event]:
        """Yield what is new of a profile.

        Yielded, never ``context.log_event``: what is logged is kept back until the next yield, and lost if the step fails.
        """
        self._last[outcome.profile_id] = outcome
        if outcome.step is Step.PLANNED:
            for key in cat.DRY_RUN_KEYS:
                if key != cat.AUDIT_KEY and key in self._selected:
                    yield self._materialization(outcome, key)
            self._context.log.info("%s: %s", outcome.profile_id, presentation.summary(outcome))
            return
        if outcome.failure is not None:
            self._context.log.error("%s failed: %s", outcome.profile_id, outcome.failure.message)
        if outcome.plan is None:
            return
        wrote_audit = outcome.recorded is not None and outcome.recorded.batch_recorded
        if (cat.AUDIT_KEY in self._selected and outcome.failure is None) or wrote_audit:
            yield self._materialization(outcome, cat.AUDIT_KEY)
        if cat.APPLIED_KEY in self._selected and outcome.failure is None:
            yield self._materialization(outcome, cat.APPLIED_KEY)

    def _materialization(self, outcome: Outcome, key: str) -> dg.AssetMaterialization:
        metadata = presentation.metadata_of(outcome, key, dashboard_url=self._dashboard, location=self._location)
        return dg.AssetMaterialization(dg.AssetKey(key), partition=outcome.profile_id, metadata=metadata)

    def checks(self) -> Iterator[Event]:
        """Yield every selected check of every profile, then for the run as a whole."""
        keys = self._context.selected_asset_check_keys
        verdicts = {
            check.name: {
                profile: verdict
                for profile, outcome in self._last.items()
                if (verdict := judge(check.name, outcome)) is not None
            }
            for check in keys
        }
        yield from evaluations(keys, verdicts)

    def finish(self) -> None:
        """Fail the run if a profile did.

        :raises Failure: naming the profiles
        """
        failures = {p: [outcome.failure] if outcome.failure else [] for p, outcome in self._last.items()}
        skipped = sum(1 for outcome in self._last.values() if outcome.skipped_reason)
        failed = sum(1 for found in failures.values() if found)
        self._context.log.info("%s profiles: %s failed, %s skipped", len(self._last), failed, skipped)
        fail_naming(failures, of=len(self._last), skipped=skipped)


exit_backfill_dry_run = dg.define_asset_job(
    "exit_backfill_dry_run",
    selection=dg.AssetSelection.assets(*cat.DRY_RUN_KEYS),
    description="**Proposes, writes nothing but audit rows.** Choose a profile (partition) and launch. Then read "
    f"`proposed_backfill_rows`: its decisions, its reasons and its digest. Runbook: `{cat.RUNBOOK}`.",
    tags={"recon/mode": "dry-run"},
)

exit_backfill_apply = dg.define_asset_job(
    "exit_backfill_apply",
    selection=dg.AssetSelection.assets(*cat.DRY_RUN_KEYS, cat.APPLIED_KEY),
    description="**Writes the bots' tables.** Applies exactly the plan whose digest is given as `expected_digest`; refuses if "
    "trading is not paused, if the plan has changed since it was read, or if anything it stands on has. Verifies itself. "
    f"`exit_backfill_rollback` takes it back. Runbook: `{cat.RUNBOOK}`.",
    config={"ops": {OP: {"config": {"expected_digest": "", "reapply_reverted": False}}}},
    tags={"recon/mode": "apply"},
)
