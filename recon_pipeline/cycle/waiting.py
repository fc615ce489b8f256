"""What waits for a person after the cycles of one account, written down for whoever looks.

What belongs here: which stages of a cycle were decided. What does not: what makes a case (``domain.waiting``) and the table
(``ledger.waiting``).

An incomplete reading decides nothing: the profile's cases stay as they are. So do those of a step that failed, or that could
not know a position. A step that the operator has switched off, or that waits for a pause, has no cases.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import psycopg

from recon_pipeline.cycle.context import CycleContext
from recon_pipeline.cycle.outcome import ProfileCycle, StageOutcome
from recon_pipeline.domain.corrections import Stage
from recon_pipeline.domain.cycle_frames import PARITY_STATES
from recon_pipeline.domain.terms import Reason, SkippedReason
from recon_pipeline.domain.waiting import WaitingCase, waiting_cases
from recon_pipeline.ledger.database import READER, DatabaseUnavailableError, connect
from recon_pipeline.ledger.waiting import ProfileCases, save_waiting_cases

_LOG = logging.getLogger(__name__)
_NOT_KNOWN: Final = frozenset({SkippedReason.EVIDENCE_INCOMPLETE.value, Reason.POSITION_UNKNOWN.value})
"""Why a step was not attempted, where that says nothing about what waits."""


def remember_waiting(cycles: Sequence[ProfileCycle], context: CycleContext) -> None:
    """Save what waits in the profiles; a failure to save it is logged and stops nobody's cycle: ``seen_at`` shows it."""
    profiles = []
    for cycle in cycles:
        lease = context.ports.leases.of(cycle.profile_id)
        decided = decided_stages(cycle)
        if lease is not None and decided:
            profiles.append(ProfileCases(lease, decided, cases_of(cycle, decided)))
    if not profiles:
        return
    try:
        with connect(context.ports.database_url, READER, "recon cycle") as connection:
            lost = save_waiting_cases(connection, profiles, run_id=context.run_id, seen_ms=context.began_ms)
    except (psycopg.Error, DatabaseUnavailableError):
        _LOG.exception("what waits for a person could not be saved; it stays as the last cycle left it")
        return
    for profile in sorted(lost):
        _LOG.warning("what waits in %s stays as it was: its lease was lost", profile)


def decided_stages(cycle: ProfileCycle) -> frozenset[Stage]:
    """The stages of which the cycle can tell what waits."""
    if cycle.failure is not None or not cycle.report.evidence_complete:
        return frozenset()
    return frozenset(stage for stage, outcome in cycle.stages.items() if _decided(outcome))


def cases_of(cycle: ProfileCycle, decided: frozenset[Stage]) -> tuple[WaitingCase, ...]:
    """What waits for a person, of the stages that were decided."""
    compared = cycle.stages.get(Stage.POSITION_PARITY)
    found = waiting_cases(
        cycle.profile_id,
        cycle.report.account_id,
        findings=[finding for outcome in cycle.stages.values() for finding in outcome.findings],
        plan=cycle.plan,
        # Where positions were not compared, the states are those of an earlier cycle.
        parity=cycle.parity if compared is not None and compared.attempted else PARITY_STATES.empty(),
    )
    return tuple(case for case in found if case.stage in decided)


def _decided(outcome: StageOutcome) -> bool:
    return outcome.failure is None and outcome.skipped_reason not in _NOT_KNOWN
