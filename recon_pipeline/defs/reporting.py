"""What the backfill's runs and the cycle's have in common: evaluations of checks, and the failure that names profiles.

Dagster concept: AssetCheckEvaluation (of a partition), AssetCheckResult (of a run), Failure. Not here: verdicts (``checks``,
``cycle_checks``), and which events a run yields (``exit_backfill``, ``cycle_events``).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import dagster as dg

from recon_pipeline.defs.checks import Verdict
from recon_pipeline.defs.tables import table
from recon_pipeline.engine import Failure

Event: TypeAlias = dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.AssetCheckResult

TRIGGER_TAG: Final = "recon/trigger"
SCHEDULED: Final = "schedule"
LOCATION: Final = "recon_pipeline"
_NAMED: Final = 5


def refuse(message: str) -> dg.Failure:
    """Return the failure of a run that was asked for something it does not do."""
    return dg.Failure(message, allow_retries=False)


def location_of(context: dg.AssetExecutionContext) -> str:
    """Return the name of the code location that the run was launched from, for links."""
    origin = context.run.remote_job_origin
    return origin.location_name if origin is not None else LOCATION


def evaluations(
    checks: Iterable[dg.AssetCheckKey],
    verdicts: Mapping[str, Mapping[str, Verdict]],
    *,
    partitions: Iterable[str] | None = None,
) -> Iterator[Event]:
    """Yield every check of every profile, then for the run as a whole.

    What does not hold comes last: the UI shows the newest evaluation as the state of the check.

    :param verdicts: by name of the check, then by profile
    :param partitions: profiles whose own evaluation is yielded; None means all
    """
    wanted = None if partitions is None else frozenset(partitions)
    for check in sorted(checks, key=lambda key: key.name):
        known = sorted(verdicts.get(check.name, {}).items(), key=lambda pair: not pair[1].passed)
        for profile, verdict in known:
            if wanted is None or profile in wanted:
                yield _of_profile(check, profile, verdict)
        if known:
            yield _of_all(check, known)


def _of_profile(check: dg.AssetCheckKey, profile: str, verdict: Verdict) -> dg.AssetCheckEvaluation:
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


def fail_naming(failures: Mapping[str, Sequence[Failure]], *, of: int, skipped: int) -> None:
    """Fail the run if a profile failed.

    :param failures: by profile; profiles without one are left out
    :raises Failure: naming the first profiles, with a table of all
    """
    failed = {profile: found for profile, found in failures.items() if found}
    if not failed:
        return
    named = "; ".join(f"{profile}: {found[0].message}" for profile, found in list(failed.items())[:_NAMED])
    more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    rows = [(profile, one.stage, one.message) for profile, found in failed.items() for one in found]
    raise dg.Failure(
        f"{len(failed)} of {of} profiles failed, the others are done. {named}{more}",
        metadata={
            "failed_profiles": table((("profile", ""), ("stage", "where it failed"), ("message", "why")), rows),
            "failed": len(failed),
            "skipped": skipped,
            "done": of - len(failed),
        },
        allow_retries=False,
    )
