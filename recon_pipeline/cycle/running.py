"""A whole cycle for a shard of profiles: read, correct orders, backfill exits, judge, repair tags, compare positions, report.

The order of the steps is the source's. One profile's failure never stops another profile, and one step's failure never skips a
safety step of the same profile that does not depend on it: each step is guarded by itself, and what it could not say is unknown
to the next, never a zero. What does not belong here: what a step decides (``domain``), how it writes (``apply``).
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from recon_pipeline.cycle.account import AccountCycle
from recon_pipeline.cycle.accounting import AccountMeter, RunTally, additions_of
from recon_pipeline.cycle.context import CycleContext
from recon_pipeline.cycle.outcome import ProfileCycle, ReconciliationReport
from recon_pipeline.cycle.ports import CyclePorts
from recon_pipeline.cycle.reading import split_by_account
from recon_pipeline.cycle.reporting import as_record
from recon_pipeline.cycle.waiting import remember_waiting
from recon_pipeline.domain.cycle_policy import CyclePolicy
from recon_pipeline.domain.watchdog import failed_profile_event
from recon_pipeline.engine import Failure, ShardAccounts, read_accounts
from recon_pipeline.ledger.cycle_state import LEASE_HELD, lease_holders, note_contention, read_cycle_state, save_reports
from recon_pipeline.ledger.database import READER, WRITER, connect, redact
from recon_pipeline.ledger.events import raise_events

_LOG = logging.getLogger(__name__)


def run_cycle(
    profile_ids: Sequence[str],
    *,
    ports: CyclePorts,
    policy: CyclePolicy,
    run_id: str,
    now: Callable[[], dt.datetime],
    new_id: Callable[[], str],
    managed_symbols: Sequence[str] | None = None,
) -> Iterator[ProfileCycle]:
    """Yield the cycle of every profile once, account by account.

    :param new_id: makes the unique part of batch ids
    :raises DatabaseUnavailableError: the ledger can't be read at all
    """
    context = CycleContext(
        ports=ports, policy=policy, run_id=run_id, began=now(), now=now, new_id=new_id, managed_symbols=managed_symbols
    )
    tally = RunTally(run_id, context.began)
    for cycle in _cycles(profile_ids, context):
        tally.count(cycle)
        yield cycle
    tally.save(ports, now())


def _cycles(profile_ids: Sequence[str], context: CycleContext) -> Iterator[ProfileCycle]:
    ports, run_id, began = context.ports, context.run_id, context.began
    held = [profile for profile in dict.fromkeys(profile_ids) if ports.leases.of(profile) is not None]
    contended = [profile for profile in dict.fromkeys(profile_ids) if ports.leases.of(profile) is None]
    yield from _contended(contended, ports, run_id, began)
    if not held:
        return
    accounts = read_accounts(
        held, ledger=ports.ledger, exchange=ports.exchange, policy=context.policy.exit_backfill, now_ms=_ms(began)
    )
    yield from _unknown(accounts, ports, run_id, began)
    with connect(ports.database_url, READER, "recon cycle") as connection:
        state = read_cycle_state(connection, accounts.present)
    for account in split_by_account(accounts):
        (reading,) = account.readings.values()
        meter = AccountMeter(ports.exchange, reading)
        try:
            cycles = AccountCycle(context, account, state).run()
        except Exception as error:  # noqa: BLE001  the border between accounts: each of its profiles says so
            _LOG.exception("the cycle of account %s failed", reading.account_id)
            cycles = [_failed(profile, account, error, context) for profile in account.profile_ids]
        meter.save(ports, read_at=began, asked_at=context.now())
        yield from _reported([replace(cycle, api_calls=meter.calls) for cycle in cycles], context)


def _contended(profiles: Sequence[str], ports: CyclePorts, run_id: str, began: dt.datetime) -> Iterator[ProfileCycle]:
    """Count and show the profiles that another run works on; nothing of them is touched."""
    if not profiles:
        return
    with connect(ports.database_url, WRITER, "recon cycle") as connection:
        holders = lease_holders(connection, profiles)
        for profile in profiles:
            holder = holders.get(profile)
            note_contention(connection, profile, "" if holder is None else holder.owner)
    siblings = {str(row["profile_id"]): row for row in ports.ledger.account_siblings(profiles)}
    cycles = []
    for profile in profiles:
        row, holder = siblings.get(profile), holders.get(profile)
        report = ReconciliationReport(
            profile_id=profile,
            user_id="" if row is None else str(row["user_id"] or ""),
            account_id="" if row is None else str(row["account_id"]),
            run_id=run_id,
            cycle_at_ms=_ms(began),
            processed=False,
            skipped_reason=LEASE_HELD,
        )
        lease: Mapping[str, object] = (
            {} if holder is None else {"owner": holder.owner, "expires_at": holder.expires_at.isoformat()}
        )
        cycles.append(ProfileCycle(report=report, lease=lease, changed=False))
    _save(ports, [cycle.report for cycle in cycles])
    yield from cycles


def _unknown(accounts: ShardAccounts, ports: CyclePorts, run_id: str, began: dt.datetime) -> Iterator[ProfileCycle]:
    """Profiles of the run that the table ``profiles`` does not have."""
    for profile in accounts.profile_ids:
        if profile in accounts.siblings:
            continue
        failure = accounts.failures[profile]
        report = ReconciliationReport(
            profile_id=profile,
            user_id="",
            account_id="",
            run_id=run_id,
            cycle_at_ms=_ms(began),
            processed=False,
            error=failure.message,
        )
        changed = _save(ports, [report])
        yield ProfileCycle(report=report, failure=failure, changed=changed.get(profile, True))


def _reported(cycles: Sequence[ProfileCycle], context: CycleContext) -> Iterator[ProfileCycle]:
    """Save the reports of one account and what waits in it, raise what has to be said, and hand the cycles out."""
    contents = {cycle.profile_id: cycle.content for cycle in cycles}
    changed = _save(context.ports, [cycle.report for cycle in cycles], contents)
    remember_waiting(cycles, context)
    failures = [
        failed_profile_event(
            cycle.report.profile_id,
            cycle.report.user_id,
            cycle.report.error,
            context.policy.watchdog,
            account_id=cycle.report.account_id,
            failed_steps=cycle.report.failed_stages,
        )
        for cycle in cycles
        if cycle.report.error
    ]
    if failures:
        with connect(context.ports.database_url, READER, "recon cycle") as connection:
            raise_events(connection, failures, run_id=context.run_id, now=context.began)
    for cycle in cycles:
        yield replace(cycle, changed=changed.get(cycle.profile_id, True))


def _save(
    ports: CyclePorts, reports: Sequence[ReconciliationReport], contents: Mapping[str, str] | None = None
) -> dict[str, bool]:
    with connect(ports.database_url, READER, "recon cycle") as connection:
        return save_reports(
            connection,
            [as_record(report) for report in reports],
            contents=contents,
            counted={report.profile_id: additions_of(report) for report in reports},
        )


def _failed(profile: str, account: ShardAccounts, error: Exception, context: CycleContext) -> ProfileCycle:
    message = f"{type(error).__name__}: {redact(str(error), context.ports.database_url)}"
    row = account.siblings[profile]
    report = ReconciliationReport(
        profile_id=profile,
        user_id=str(row["user_id"] or ""),
        account_id=str(row["account_id"]),
        run_id=context.run_id,
        cycle_at_ms=_ms(context.began),
        processed=False,
        error=message,
    )
    return ProfileCycle(report=report, failure=Failure("cycle", message))


def _ms(instant: dt.datetime) -> int:
    return int(instant.timestamp() * 1000)
