"""A run of the order status sync: which orders are due, what the exchange says of them, what that changes, what is remembered.

What belongs here: the order of the steps for many profiles, and that one profile's or account's failure stays its own. What does
not: rules (``domain.order_checks``, ``domain.order_status``), asking (``asking``), and one profile's share (``writing``).

The exchange is asked before any lease is taken. What a run that was killed had not saved is due again: every profile's share is
one transaction.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pandas as pd

from recon_pipeline.domain.corrections import Stage, changes_digest
from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.order_answers import Decision
from recon_pipeline.domain.order_checks import persistent_events
from recon_pipeline.domain.order_parity import RowKey
from recon_pipeline.domain.order_status import COUNTERS
from recon_pipeline.domain.order_status_frames import ORDER_CHECKS
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.engine import Failure
from recon_pipeline.ledger.database import READER, connect, redact
from recon_pipeline.ledger.events import raise_events
from recon_pipeline.ledger.order_checks import save_sync_run
from recon_pipeline.ledger.totals import Addition, TotalName, save_account_requests
from recon_pipeline.order_status.asking import Answered, Asked, ask_accounts
from recon_pipeline.order_status.brief_lease import brief_lease
from recon_pipeline.order_status.choosing import Chosen, SyncScope, choose_orders
from recon_pipeline.order_status.outcome import ProfileSync, SyncResult
from recon_pipeline.order_status.ports import Record, SyncPorts
from recon_pipeline.order_status.writing import ProfileShare, SyncContext, judge, sync_profile

__all__ = ["FAULT_POINTS", "LEASE_HELD", "NOT_LIVE", "DigestChangedError", "SyncScope", "sync_order_status"]

_LOG = logging.getLogger(__name__)
LEASE_HELD: Final = "lease_held"
"""why nothing became of an answer: a cycle works on the profile; the order is due again"""
NOT_LIVE: Final = "row_is_over_or_gone"
"""why a person's decision about an order came to nothing"""
FAULT_POINTS: Final = (
    "orders_chosen",
    "accounts_asked",
    "leased",
    "judged",
    "checks_saved",
    "committed_checks",
    "profiles_done",
)
"""Where ``at`` is called, beside those of ``apply.corrections``: what a kill test kills at."""
_FIRST_PATIENCE_SECONDS: Final = 0.2
_PATIENCE_SECONDS: Final = 30.0
"""How long a run waits in all for profiles that others work on; it works on the rest first."""


class DigestChangedError(Exception):
    """What would be written now is not what was previewed; nothing was written."""


def _nowhere(point: str) -> None:
    """Nothing happens at a fault point."""


def sync_order_status(
    profile_ids: Sequence[str],
    *,
    ports: SyncPorts,
    policy: OrderStatusPolicy,
    run_id: str,
    now: Callable[[], dt.datetime],
    new_id: Callable[[], str],
    dry_run: bool,
    managed_symbols: Sequence[str] | None = None,
    scope: SyncScope = SyncScope.DUE,
    limit: int | None = None,
    expected_digest: str | None = None,
    decided: Mapping[RowKey, Decision] | None = None,
    at: Callable[[str], None] = _nowhere,
) -> SyncResult:
    """Ask the exchange about the profiles' stale orders, and make the ledger say what it answers.

    :param new_id: makes the unique part of batch ids
    :param dry_run: write no order; what is remembered of the checks is kept all the same, for it is not the bots'. Only a
        person's preview (of OLD orders, or of decisions) remembers nothing, so that what follows it is the same
    :param limit: orders to ask about; None: ``policy.batch_size``
    :param expected_digest: of the preview that a person confirms
    :param decided: rows that a person gives up: exactly these are asked about, whatever the scope
    :param at: called with the name of each of :data:`FAULT_POINTS`
    :raises DigestChangedError: see there
    :raises DatabaseUnavailableError: the ledger can't be read at all
    :raises ValueError: a decision about an order of a profile that is not among these
    """
    decisions = dict(decided or {})
    foreign = {profile_id for profile_id, _ in decisions} - set(profile_ids)
    if foreign:
        raise ValueError(
            f"decisions about orders of profiles that the run does not work on: {', '.join(sorted(foreign))}"
        )
    run = _Run(
        SyncContext(
            ports=ports,
            policy=policy,
            run_id=run_id,
            began=now(),
            now=now,
            new_id=new_id,
            dry_run=dry_run,
            remember=not (dry_run and (decisions or scope is SyncScope.OLD)),
            managed_symbols=managed_symbols,
            decided=decisions,
            at=at,
        ),
        tuple(dict.fromkeys(profile_ids)),
        scope,
        limit,
    )
    return run.run(expected_digest)


@dataclass
class _Run:
    """One run."""

    context: SyncContext
    profile_ids: tuple[str, ...]
    scope: SyncScope
    limit: int | None
    siblings: dict[str, Record] = field(default_factory=dict)
    stale: dict[str, pd.DataFrame] = field(default_factory=dict)
    """ORDER_CHECKS before the answers, by profile"""
    done: dict[str, ProfileSync] = field(default_factory=dict)

    def run(self, expected_digest: str | None) -> SyncResult:
        context = self.context
        wanted = list(self.profile_ids)
        self.siblings = {str(row["profile_id"]): row for row in context.ports.ledger.account_siblings(wanted)}
        present = [profile_id for profile_id in wanted if profile_id in self.siblings]
        chosen = choose_orders(
            context, {name: self.siblings[name] for name in present}, scope=self.scope, limit=self.limit
        )
        self.stale = {profile_id: chosen.stale_of(profile_id) for profile_id in present}
        context.at("orders_chosen")
        asked = ask_accounts(context.ports.exchange, chosen.asked, bulk_pages=context.policy.bulk_pages)
        self._count_requests(asked)
        context.at("accounts_asked")
        shares = [self._share(profile_id, asked, chosen) for profile_id in present]
        if expected_digest is not None:
            shares = self._confirmed(shares, expected_digest)
        busy = [share for share in shares if self._has_work(share, chosen)]
        self._work_off(busy)
        for share in shares:
            if share.profile_id not in self.done:
                self.done[share.profile_id] = self._quiet(share)
        self._say_what_is_missing(chosen)
        context.at("profiles_done")
        return self._finish(asked)

    def _share(self, profile_id: str, asked: Asked, chosen: Chosen, confirmed: str | None = None) -> ProfileShare:
        account_id = str(self.siblings[profile_id]["account_id"])
        return ProfileShare(
            profile_id=profile_id,
            siblings={name: row for name, row in self.siblings.items() if str(row["account_id"]) == account_id},
            answered=asked.answers.get(profile_id, Answered()),
            left_over=chosen.left_over.get(profile_id, 0),
            confirmed=confirmed,
        )

    # -- working

    def _confirmed(self, shares: list[ProfileShare], expected_digest: str) -> list[ProfileShare]:
        """The shares with the changes that each may make: together those that a person confirmed.

        :raises DigestChangedError: they are not
        """
        with connect(self.context.ports.database_url, READER, "recon order status") as connection:
            judged = {
                share.profile_id: judge(connection, self.context, share) for share in shares if share.answered.checks
            }
        digest = changes_digest(change for each in judged.values() for change in each.changes.changes)
        if digest != expected_digest:
            raise DigestChangedError(
                f"what would be written now has the digest {digest}, the preview had {expected_digest}; preview again"
            )
        return [
            replace(share, confirmed=judged[share.profile_id].digest) if share.profile_id in judged else share
            for share in shares
        ]

    def _has_work(self, share: ProfileShare, chosen: Chosen) -> bool:
        """Whether there is anything to decide or to remember for the profile."""
        return bool(share.answered.checks) or (self.context.remember and share.profile_id in chosen.changed)

    def _work_off(self, shares: Sequence[ProfileShare]) -> None:
        """Each share under its lease; those that others work on last, as long as the patience of the run lasts."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        waiting = [share for share in shares if not self._attempt(share, _FIRST_PATIENCE_SECONDS)]
        for share in waiting:
            if not self._attempt(share, max(0.0, deadline - time.monotonic())):
                self.done[share.profile_id] = self._contended(share)

    def _attempt(self, share: ProfileShare, patience_seconds: float) -> bool:
        """Do one share, whatever becomes of it; False where somebody else holds the lease."""
        context = self.context
        try:
            if not context.remember:
                self.done[share.profile_id] = sync_profile(context, share, None)
                return True
            owner = f"order status {context.run_id}"
            url = context.ports.database_url
            with brief_lease(url, share.profile_id, owner=owner, patience_seconds=patience_seconds) as lease:
                if lease is None:
                    return False
                context.at("leased")
                self.done[share.profile_id] = sync_profile(context, share, lease)
        except Exception as error:  # noqa: BLE001  logged; one profile's failure stays its own
            _LOG.exception("the orders of profile %s could not be worked on", share.profile_id)
            text = redact(str(error), context.ports.database_url)
            self.done[share.profile_id] = self._failed(share, f"{type(error).__name__}: {text}")
        return True

    # -- telling

    def _quiet(self, share: ProfileShare) -> ProfileSync:
        """A profile that nothing became of, with what was remembered of it before."""
        counts = dict.fromkeys(COUNTERS, 0) | {"left_over": share.left_over + share.answered.unasked}
        checks = self.stale[share.profile_id]
        return ProfileSync(share.profile_id, share.user_id, share.account_id, counts=counts, checks=checks)

    def _contended(self, share: ProfileShare) -> ProfileSync:
        """A profile whose answers came to nothing, because a cycle works on it: its orders are due as they were."""
        checks = share.answered.checks
        quiet = self._quiet(share)
        counts = dict(quiet.counts) | {"left_over": quiet.counts["left_over"] + len(checks)}
        return replace(quiet, counts=counts, postponed={check.order_id: LEASE_HELD for check in checks})

    def _failed(self, share: ProfileShare, message: str) -> ProfileSync:
        """A profile of which nothing was written and nothing remembered."""
        quiet = self._quiet(share)
        counts = dict(quiet.counts) | {"failed": len(share.answered.checks)}
        return replace(quiet, counts=counts, failure=Failure(Stage.ORDER_STATUS.value, message))

    def _say_what_is_missing(self, chosen: Chosen) -> None:
        """Profiles that the ledger does not know, and decisions about orders that are not live any more."""
        for profile_id in self.profile_ids:
            if profile_id not in self.siblings:
                message = f"profile {profile_id!r} is not in the table profiles; add it, or delete its partition"
                counts = dict.fromkeys(COUNTERS, 0)
                failure = Failure("profiles", message)
                self.done[profile_id] = ProfileSync(profile_id, "", "", counts=counts, failure=failure)
        asked = {(check.profile_id, check.order_id) for check in rows_of(chosen.asked)}
        for profile_id, order_id in sorted(set(self.context.decided) - asked):
            done = self.done[profile_id]
            self.done[profile_id] = replace(done, postponed={**done.postponed, order_id: NOT_LIVE})

    def _count_requests(self, asked: Asked) -> None:
        """Count what asking cost at once: a run that is killed later has sent the requests all the same."""
        context = self.context
        reached = {account_id: answers for account_id, answers in asked.accounts.items() if answers.api_calls}
        if not reached:
            return
        with connect(context.ports.database_url, READER, "recon order status") as connection:
            for account_id, answers in reached.items():
                usage = context.ports.exchange.usage_of(account_id)
                save_account_requests(
                    connection,
                    Addition(TotalName.ORDER_STATUS_API_CALLS, answers.api_calls, account_id=account_id),
                    rate_limit=usage.rate_limit,
                    rate_remaining=usage.rate_remaining,
                    asked_at=context.now(),
                )

    def _finish(self, asked: Asked) -> SyncResult:
        context = self.context
        result = SyncResult(
            run_id=context.run_id,
            began_at_ms=context.began_ms,
            dry_run=context.dry_run,
            profiles={profile_id: self.done[profile_id] for profile_id in self.profile_ids},
            accounts=asked.accounts,
            left_over=sum(done.counts.get("left_over", 0) for done in self.done.values()),
            digest=changes_digest(change for done in self.done.values() for change in done.changes),
        )
        if context.remember:
            self._keep(result)
        return result

    def _keep(self, result: SyncResult) -> None:
        context = self.context
        checks = [done.checks for done in result.profiles.values() if len(done.checks)]
        events = persistent_events(
            pd.concat(checks, ignore_index=True) if checks else ORDER_CHECKS.empty(),
            {profile_id: done.user_id for profile_id, done in result.profiles.items()},
            context.policy,
            now_ms=context.began_ms,
        )
        with connect(context.ports.database_url, READER, "recon order status") as connection:
            if events:
                raise_events(connection, events, run_id=context.run_id, now=context.began)
            save_sync_run(
                connection,
                context.run_id,
                began_at=context.began,
                ended_at=context.now(),
                dry_run=context.dry_run,
                counts=result.counts,
                api_calls=result.api_calls,
                error="; ".join(_errors(result))[:_LONGEST_ERROR],
            )


_LONGEST_ERROR: Final = 2_000


def _errors(result: SyncResult) -> Iterator[str]:
    for account in result.accounts.values():
        if account.error:
            yield f"account {account.account_id}: {account.error}"
    for done in result.profiles.values():
        if done.failure is not None:
            yield f"profile {done.profile_id}: {done.failure.message}"
