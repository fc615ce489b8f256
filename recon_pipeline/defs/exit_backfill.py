"""The assets of the exit backfill, made by one step, and the jobs that launch it.

Dagster concept: a multi-asset whose outputs are skippable. The step asks ``shard_run`` for outcomes and logs each profile's
materializations and checks as they come, so that one profile's failure leaves the others materialized; at its end it fails
and names the profiles that did. Whether a run applies is decided by its selection: only a run that selects
``applied_backfill_rows`` does. Not here: what an asset is (``catalogue``) and how an outcome looks (``presentation``).
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import dagster as dg
from pydantic import Field

from recon_pipeline.defs import catalogue as cat
from recon_pipeline.defs import presentation
from recon_pipeline.defs.checks import Verdict, judge
from recon_pipeline.defs.resources import Outside
from recon_pipeline.defs.shard_run import Ask, Outcome, Step, run_shard
from recon_pipeline.defs.tables import table

Event: TypeAlias = dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.AssetCheckResult

LOCATION: Final = "recon_pipeline"
TRIGGER_TAG: Final = "recon/trigger"
SCHEDULED: Final = "schedule"
_NAMED: Final = 5
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
            raise _refuse("Give expected_digest or expected_digests, not both.")
        if single and len(profile_ids) != 1:
            raise _refuse(
                f"One digest can't be that of {len(profile_ids)} profiles: give expected_digests, by profile, or launch one."
            )
        if strangers := sorted(set(several) - set(profile_ids)):
            raise _refuse(f"expected_digests names profiles that are not part of this run: {', '.join(strangers)}.")
        digests = {profile_ids[0]: single} if single else several
        for profile, digest in digests.items():
            if len(digest) != _DIGEST_LENGTH or set(digest) - set("0123456789abcdef"):
                raise _refuse(
                    f"The digest given for {profile} is no digest: 64 characters of 0-9 and a-f, as the dry run shows it."
                )
        return digests


def _refuse(message: str) -> dg.Failure:
    return dg.Failure(message, allow_retries=False)


@dg.multi_asset(
    name="exit_backfill",
    specs=list(cat.SPECS),
    check_specs=list(cat.CHECKS),
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.single_run(),
    op_tags={"dagster/priority": "0"},
)
def exit_backfill(
    context: dg.AssetExecutionContext, config: ExitBackfillConfig, outside: dg.ResourceParam[Outside]
) -> Iterator[Event]:
    """Read the exchange and the ledger, plan, and record the plan (dry run) or apply it (apply)."""
    if not (context.has_partition_key or context.has_partition_key_range):
        raise _refuse("Choose a partition: one profile, or a range of profiles.")
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
        raise _refuse("A digest is given, but this run only proposes: launch exit_backfill_apply.")
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
        origin = context.run.remote_job_origin
        self._location = origin.location_name if origin is not None else LOCATION
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
        """Yield every selected check of every profile, then for the run as a whole.

        What does not hold comes last: the UI shows the newest evaluation as the state of the check.
        """
        for check in sorted(self._context.selected_asset_check_keys, key=lambda key: key.name):
            verdicts = [(profile, judge(check.name, outcome)) for profile, outcome in self._last.items()]
            known = sorted(
                ((profile, verdict) for profile, verdict in verdicts if verdict is not None),
                key=lambda pair: not pair[1].passed,
            )
            for profile, verdict in known:
                yield _evaluation(check, profile, verdict)
            if known:
                yield _of_all(check, known)

    def finish(self) -> None:
        """Fail the run if a profile did.

        :raises Failure: naming the profiles
        """
        failed = {profile: outcome for profile, outcome in self._last.items() if outcome.failure is not None}
        skipped = sum(1 for outcome in self._last.values() if outcome.skipped_reason)
        self._context.log.info("%s profiles: %s failed, %s skipped", len(self._last), len(failed), skipped)
        if not failed:
            return
        named = "; ".join(
            f"{profile}: {outcome.failure.message}"
            for profile, outcome in list(failed.items())[:_NAMED]
            if outcome.failure
        )
        more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        rows = [
            (profile, outcome.failure.stage, outcome.failure.message)
            for profile, outcome in failed.items()
            if outcome.failure
        ]
        raise dg.Failure(
            f"{len(failed)} of {len(self._last)} profiles failed, the others are done. {named}{more}",
            metadata={
                "failed_profiles": table((("profile", ""), ("stage", "where it failed"), ("message", "why")), rows),
                "failed": len(failed),
                "skipped": skipped,
                "done": len(self._last) - len(failed),
            },
            allow_retries=False,
        )


def _evaluation(check: dg.AssetCheckKey, profile: str, verdict: Verdict) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=verdict.passed,
        severity=verdict.severity,
        description=verdict.description,
        metadata={"profile": profile, **verdict.metadata()},
        partition=profile,
    )


def _of_all(check: dg.AssetCheckKey, verdicts: Sequence[tuple[str, Verdict]]) -> dg.AssetCheckResult:
    failed = [(profile, verdict) for profile, verdict in verdicts if not verdict.passed]
    errors = [verdict for _, verdict in failed if verdict.severity is dg.AssetCheckSeverity.ERROR]
    severity = dg.AssetCheckSeverity.ERROR if errors or not failed else dg.AssetCheckSeverity.WARN
    metadata: dict[str, Any] = {"profiles": len(verdicts), "profiles_failing": len(failed)}
    if len(verdicts) == 1:
        profile, verdict = verdicts[0]
        metadata |= {"profile": profile, **verdict.metadata()}
        description = verdict.description
    elif failed:
        columns = (("profile", ""), ("violations", ""), ("what", ""), ("what_to_do", ""))
        rows = [(profile, verdict.count, verdict.description, verdict.recovery) for profile, verdict in failed]
        metadata["failing_profiles"] = table(columns, rows)
        description = f"Does not hold for {len(failed)} of {len(verdicts)} profiles."
    else:
        description = f"Holds for all {len(verdicts)} profiles."
    return dg.AssetCheckResult(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=not failed,
        severity=severity,
        description=description,
        metadata=metadata,
    )


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
    config={"ops": {"exit_backfill": {"config": {"expected_digest": "", "reapply_reverted": False}}}},
    tags={"recon/mode": "apply"},
)
