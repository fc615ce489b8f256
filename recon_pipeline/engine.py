"""The stages in their order, for a shard of profiles. Knows ports, not Dagster, not Postgres, not HTTP.

The order of the readings matters: the pause and the exchange first, the ledger after it. A row that a bot writes in
between is then seen as represented; read the other way round, its execution would look like a ghost's exit.

One profile's failure is set aside with its error and never stops the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import pandas as pd

from recon_pipeline.domain.exit_backfill import plan_exit_backfill
from recon_pipeline.domain.frames import EXCHANGE_ORDERS, POSITIONS, PROFILES
from recon_pipeline.domain.plan import ExitBackfillInputs, ProfilePlan
from recon_pipeline.domain.policy import ExitBackfillPolicy
from recon_pipeline.domain.readings import consumption_frame, lifecycle_rows_frame
from recon_pipeline.exchange.gateway import AccountReading, ExchangeReader

_log = logging.getLogger(__name__)
Record = Mapping[str, Any]
_PARALLEL_ACCOUNTS = 8


class PauseLike(Protocol):
    """Whether trading is paused."""

    @property
    def paused(self) -> bool:
        """Whether trading is paused."""
        ...


class LedgerReader(Protocol):
    """What the engine reads of the ledger; ``ledger.reads.PostgresLedger`` is the real one."""

    def account_siblings(self, profile_ids: Sequence[str]) -> Sequence[Record]:
        """Every profile on the accounts of the given ones, they themselves included."""
        ...

    def lifecycle_records(self, profile_ids: Sequence[str]) -> Sequence[Record]:
        """Raw rows of ``orders`` that executed or may yet, and backfill rows of any status."""
        ...

    def consumption(self, account_ids: Sequence[str]) -> Sequence[Record]:
        """What live backfill rows have consumed of the accounts' executions."""
        ...

    def pause_state(self, profile_ids: Sequence[str]) -> Mapping[str, PauseLike]:
        """The pause, by profile."""
        ...

    def audit_available(self) -> bool:
        """Whether the audit table takes rows."""
        ...


@dataclass(frozen=True)
class Failure:
    """Why one profile was set aside: the stage and a sentence for the operator."""

    stage: str
    message: str


@dataclass(frozen=True)
class ShardReading:
    """One snapshot of exchange and ledger for a shard: everything that its plans depend on."""

    profile_ids: tuple[str, ...]
    inputs: ExitBackfillInputs
    accounts: Mapping[str, AccountReading]
    """by account id"""
    as_of_ms: int
    failures: Mapping[str, Failure] = field(default_factory=dict)
    """by profile id; such a profile has no plan"""

    def account_of(self, profile_id: str) -> AccountReading:
        """The reading of the profile's account."""
        profiles = self.inputs.profiles
        return self.accounts[str(profiles["account_id"][profiles["profile_id"] == profile_id].iloc[0])]


@dataclass(frozen=True)
class ShardPlan:
    """The plans of a shard, by profile id, and the profiles that were set aside."""

    plans: Mapping[str, ProfilePlan]
    failures: Mapping[str, Failure]


@dataclass(frozen=True)
class ShardAccounts:
    """What the exchange said of the accounts of a shard, read before the ledger."""

    profile_ids: tuple[str, ...]
    siblings: Mapping[str, Record]
    """every profile on the accounts, by profile id"""
    readings: Mapping[str, AccountReading]
    """by account id"""
    failures: Mapping[str, Failure]
    """by profile id: unknown profiles, and those whose account could not be read at all"""
    as_of_ms: int

    @property
    def present(self) -> list[str]:
        """The wanted profiles that the ledger knows."""
        return [profile for profile in self.profile_ids if profile in self.siblings]

    def account_of(self, profile_id: str) -> str:
        """The account of a profile that the ledger knows."""
        return str(self.siblings[profile_id]["account_id"])


def read_shard(
    profile_ids: Sequence[str],
    *,
    ledger: LedgerReader,
    exchange: ExchangeReader,
    policy: ExitBackfillPolicy,
    now_ms: int,
    new_batch_id: Callable[[], str],
    managed_symbols: Sequence[str] | None = None,
) -> ShardReading:
    """Read what the plans of ``profile_ids`` depend on: each account once, the ledger in one statement per table.

    :param managed_symbols: symbols in scope for profiles that name none of their own; None means all
    """
    accounts = read_accounts(profile_ids, ledger=ledger, exchange=exchange, policy=policy, now_ms=now_ms)
    # After the exchange, so that what a bot wrote meanwhile counts as recorded.
    return read_ledger(accounts, ledger=ledger, new_batch_id=new_batch_id, managed_symbols=managed_symbols)


def read_accounts(
    profile_ids: Sequence[str],
    *,
    ledger: LedgerReader,
    exchange: ExchangeReader,
    policy: ExitBackfillPolicy,
    now_ms: int,
) -> ShardAccounts:
    """Read each account of the profiles once."""
    wanted = tuple(dict.fromkeys(profile_ids))
    siblings = {str(row["profile_id"]): row for row in ledger.account_siblings(wanted)}
    failures = {
        profile: Failure(
            "profiles", f"profile {profile!r} is not in the table profiles; add it, or delete its partition"
        )
        for profile in wanted
        if profile not in siblings
    }
    present = [profile for profile in wanted if profile in siblings]
    account_ids = sorted({str(siblings[profile]["account_id"]) for profile in present})
    readings = _read_accounts(exchange, account_ids, since_ms=now_ms - policy.lookback_ms, now_ms=now_ms)
    for profile in present:
        reading = readings[str(siblings[profile]["account_id"])]
        if reading.error:
            failures[profile] = Failure(
                "exchange", f"account {reading.account_id!r} could not be read: {reading.error}"
            )
    return ShardAccounts(wanted, siblings, readings, failures, now_ms)


def read_ledger(
    accounts: ShardAccounts,
    *,
    ledger: LedgerReader,
    new_batch_id: Callable[[], str],
    managed_symbols: Sequence[str] | None = None,
    records: Sequence[Record] | None = None,
) -> ShardReading:
    """Read the ledger of every profile on the accounts, and put it beside what the exchange said.

    :param records: the ledger's rows where the caller has read them already, after the accounts
    """
    everyone = sorted(accounts.siblings)
    rows = lifecycle_rows_frame(ledger.lifecycle_records(everyone) if records is None else records)
    paused = ledger.pause_state(everyone)
    readings = accounts.readings
    inputs = ExitBackfillInputs(
        profiles=_profiles_frame(
            accounts.siblings,
            selected=set(accounts.present) - set(accounts.failures),
            paused={profile: state.paused for profile, state in paused.items()},
            readings=readings,
            audit_available=ledger.audit_available(),
            managed_symbols=managed_symbols,
            new_batch_id=new_batch_id,
        ),
        lifecycle_rows=rows,
        exchange_orders=_joined([reading.orders for reading in readings.values()], EXCHANGE_ORDERS.empty()),
        positions=_joined([reading.positions for reading in readings.values()], POSITIONS.empty()),
        consumption=consumption_frame(ledger.consumption(sorted(readings))),
        positions_unknown=frozenset(account for account, reading in readings.items() if not reading.positions_known),
    )
    return ShardReading(accounts.profile_ids, inputs, readings, accounts.as_of_ms, accounts.failures)


def _read_accounts(
    exchange: ExchangeReader, account_ids: Sequence[str], *, since_ms: int, now_ms: int
) -> dict[str, AccountReading]:
    """Each account once, several at a time: they wait for the network, and each has its own rate budget."""
    if not account_ids:
        return {}
    with ThreadPoolExecutor(max_workers=min(_PARALLEL_ACCOUNTS, len(account_ids))) as pool:
        readings = pool.map(
            lambda account: exchange.read_account(account, since_ms=since_ms, now_ms=now_ms), account_ids
        )
        return dict(zip(account_ids, readings, strict=True))


def _profiles_frame(
    siblings: Mapping[str, Record],
    *,
    selected: set[str],
    paused: Mapping[str, bool],
    readings: Mapping[str, AccountReading],
    audit_available: bool,
    managed_symbols: Sequence[str] | None,
    new_batch_id: Callable[[], str],
) -> pd.DataFrame:
    rows = []
    for profile_id in sorted(siblings):
        row = siblings[profile_id]
        account_id = str(row["account_id"])
        own_symbols = row["managed_symbols"]
        symbols = managed_symbols if own_symbols is None else own_symbols
        rows.append(
            {
                "profile_id": profile_id,
                "user_id": str(row["user_id"] or ""),
                "account_id": account_id,
                "selected": profile_id in selected,
                "paused": paused[profile_id],
                "audit_available": audit_available,
                "evidence_defect": "; ".join(readings[account_id].certificate.reasons),
                "managed_symbols": None if symbols is None else tuple(symbols),
                "batch_id": new_batch_id() if profile_id in selected else "",
            }
        )
    if not rows:
        return PROFILES.empty()
    return pd.DataFrame(rows, columns=PROFILES.names).astype(
        {column.name: "object" for column in PROFILES.columns if column.type in {"text", "list"}}
    )


def _joined(frames: Sequence[pd.DataFrame], empty: pd.DataFrame) -> pd.DataFrame:
    full = [frame for frame in frames if len(frame)]
    return pd.concat(full, ignore_index=True) if full else empty


def plan_shard(reading: ShardReading, policy: ExitBackfillPolicy) -> ShardPlan:
    """Plan every selected profile of the reading, account by account.

    A plan that fails (a defect, or rows that name a stranger) sets its account's profiles aside, logged with its trace.
    """
    inputs = reading.inputs
    plans: dict[str, ProfilePlan] = {}
    failures = dict(reading.failures)
    for members, account in _by_account(inputs):
        chosen = list(members["profile_id"][members["selected"].to_numpy(dtype=bool)])
        try:
            plan = plan_exit_backfill(account, policy, now_ms=reading.as_of_ms)
        except Exception as error:  # noqa: BLE001  the border between accounts: the run names it and ends failed
            _log.exception("planning account %s failed", members["account_id"].iloc[0])
            failures.update({profile: Failure("plan", f"{type(error).__name__}: {error}") for profile in chosen})
            continue
        plans.update({profile: plan.for_profile(profile) for profile in chosen})
    return ShardPlan(plans, failures)


def _by_account(inputs: ExitBackfillInputs) -> Iterator[tuple[pd.DataFrame, ExitBackfillInputs]]:
    """The snapshot of each account that has a selected profile, with the profiles of the account."""
    account_of = dict(zip(inputs.profiles["profile_id"], inputs.profiles["account_id"], strict=True))
    rows, pending = inputs.lifecycle_rows, inputs.pending_rows
    accounts_of_rows = rows["profile_id"].map(account_of)
    accounts_of_pending = pending["profile_id"].map(account_of)
    row_groups = _groups(rows, accounts_of_rows)
    pending_groups = _groups(pending, accounts_of_pending)
    order_groups = _groups(inputs.exchange_orders, inputs.exchange_orders["account_id"])
    position_groups = _groups(inputs.positions, inputs.positions["account_id"])
    consumed = _groups(inputs.consumption, inputs.consumption["account_id"])
    for account_id, members in _groups(inputs.profiles, inputs.profiles["account_id"]).items():
        if not members["selected"].any():
            continue
        yield (
            members,
            ExitBackfillInputs(
                profiles=members,
                lifecycle_rows=row_groups.get(account_id, rows.iloc[:0]),
                exchange_orders=order_groups.get(account_id, inputs.exchange_orders.iloc[:0]),
                positions=position_groups.get(account_id, inputs.positions.iloc[:0]),
                pending_rows=pending_groups.get(account_id, pending.iloc[:0]),
                consumption=consumed.get(account_id, inputs.consumption.iloc[:0]),
                existing_order_ids=inputs.existing_order_ids,
                positions_unknown=inputs.positions_unknown,
            ),
        )


def _groups(frame: pd.DataFrame, keys: pd.Series) -> dict[str, pd.DataFrame]:
    return {str(key): group for key, group in frame.groupby(keys.to_numpy(), sort=True)}
