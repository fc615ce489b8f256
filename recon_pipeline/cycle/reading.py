"""One account's snapshot for a cycle: what the exchange said, then the ledger, and single orders looked up.

The exchange is read before the ledger, as in ``engine``: what a bot wrote meanwhile counts as recorded. What does not belong
here: any decision about what was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

import pandas as pd

from recon_pipeline.cycle.ports import CycleExchange, CycleLedger, Record
from recon_pipeline.domain.corrections import Finding, Stage
from recon_pipeline.domain.coverage_rows import RECORDED_ELSEWHERE
from recon_pipeline.domain.cycle_frames import CycleInputs
from recon_pipeline.domain.cycle_policy import OrderParityPolicy
from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.order_parity import orders_to_look_up
from recon_pipeline.domain.order_readings import ledger_orders_frame, order_facts_frame
from recon_pipeline.domain.quantities import parse_decimal
from recon_pipeline.engine import ShardAccounts, ShardReading, read_ledger
from recon_pipeline.exchange.gateway import Absent, AccountReading, Found

OrderKey = tuple[str, str]
"""(profile id, order id of the ledger row)"""


@dataclass(frozen=True)
class LookedUp:
    """What single look-ups said of ledger rows whose orders the reading did not bring."""

    asked: frozenset[OrderKey] = frozenset()
    absent: frozenset[OrderKey] = frozenset()
    """the exchange itself says that there is no such order"""
    unknown: Mapping[OrderKey, str] = field(default_factory=dict)
    """any other answer, and why"""


@dataclass(frozen=True)
class AccountSnapshot:
    """Everything that the stages of one account decide from."""

    accounts: ShardAccounts
    """the account alone, with the profiles that the run wants of it"""
    chosen: tuple[str, ...]
    """profiles whose lease the run holds: only these are decided"""
    shard: ShardReading
    inputs: CycleInputs
    looked_up: LookedUp = field(default_factory=LookedUp)
    findings: tuple[Finding, ...] = ()

    @property
    def account_id(self) -> str:
        """The account."""
        return self.reading.account_id

    @property
    def reading(self) -> AccountReading:
        """What the exchange said of it."""
        return next(iter(self.accounts.readings.values()))

    @property
    def complete(self) -> bool:
        """Whether everything was read that a conclusion needs."""
        return self.reading.certificate.complete


def split_by_account(accounts: ShardAccounts) -> Iterator[ShardAccounts]:
    """Yield the shard account by account, in the order of their ids; profiles that the ledger does not know are left out."""
    for account_id, reading in sorted(accounts.readings.items()):
        siblings = {name: row for name, row in accounts.siblings.items() if str(row["account_id"]) == account_id}
        yield ShardAccounts(
            profile_ids=tuple(name for name in accounts.profile_ids if name in siblings),
            siblings=siblings,
            readings={account_id: reading},
            failures={name: failure for name, failure in accounts.failures.items() if name in siblings},
            as_of_ms=accounts.as_of_ms,
        )


def read_account_snapshot(
    accounts: ShardAccounts,
    chosen: Sequence[str],
    *,
    ledger: CycleLedger,
    new_batch_id: Callable[[], str],
    managed_symbols: Sequence[str] | None,
) -> AccountSnapshot:
    """Read the ledger beside the account's reading."""
    (reading,) = accounts.readings.values()
    facts = order_facts_frame(reading.raw_orders, account_id=reading.account_id)
    return _with_ledger(
        accounts, tuple(chosen), facts, ledger=ledger, new_batch_id=new_batch_id, managed_symbols=managed_symbols
    )


def read_ledger_again(
    snapshot: AccountSnapshot,
    *,
    ledger: CycleLedger,
    new_batch_id: Callable[[], str],
    managed_symbols: Sequence[str] | None,
) -> AccountSnapshot:
    """Read the ledger again after something was written; what the exchange said stays."""
    again = _with_ledger(
        snapshot.accounts,
        snapshot.chosen,
        snapshot.inputs.order_facts,
        ledger=ledger,
        new_batch_id=new_batch_id,
        managed_symbols=managed_symbols,
    )
    return replace(again, looked_up=snapshot.looked_up, findings=snapshot.findings)


def look_orders_up(
    snapshot: AccountSnapshot, *, exchange: CycleExchange, policy: OrderParityPolicy, now_ms: int
) -> AccountSnapshot:
    """Ask for the orders that the ledger holds as open and the reading did not bring; add what was found."""
    missing = list(rows_of(orders_to_look_up(snapshot.inputs, policy, now_ms=now_ms)))
    if not missing:
        return snapshot
    keys = [(row.profile_id, row.order_id) for row in missing]
    answers = exchange.look_up_all(snapshot.account_id, [(row.order_id, row.client_order_id) for row in missing])
    found, absent, unknown = [], set(), {}
    for key, answer in zip(keys, answers, strict=True):
        if isinstance(answer, Found):
            found.append(answer.raw)
        elif isinstance(answer, Absent):
            absent.add(key)
        else:
            unknown[key] = answer.error
    facts = snapshot.inputs.order_facts
    if found:
        facts = pd.concat([facts, order_facts_frame(found, account_id=snapshot.account_id)], ignore_index=True)
    return replace(
        snapshot,
        inputs=replace(snapshot.inputs, order_facts=facts),
        looked_up=LookedUp(frozenset(keys), frozenset(absent), unknown),
    )


def _with_ledger(
    accounts: ShardAccounts,
    chosen: tuple[str, ...],
    facts: pd.DataFrame,
    *,
    ledger: CycleLedger,
    new_batch_id: Callable[[], str],
    managed_symbols: Sequence[str] | None,
) -> AccountSnapshot:
    everyone = sorted(accounts.siblings)
    records = list(ledger.lifecycle_records(everyone))
    # Rows whatever their status: a closed row whose order is live again, and one that a bot has canceled too early.
    named = ledger.rows_naming_orders({*facts["order_id"], *facts["client_order_id"]}) if len(facts) else ()
    shard = read_ledger(
        accounts, ledger=ledger, new_batch_id=new_batch_id, managed_symbols=managed_symbols, records=records
    )
    own, strangers = _merged(records, named, frozenset(accounts.siblings))
    profiles = shard.inputs.profiles
    inputs = CycleInputs(
        profiles=profiles.assign(selected=profiles["profile_id"].isin(list(chosen)).to_numpy(dtype=bool)),
        ledger_orders=ledger_orders_frame(own),
        order_facts=_marked(facts, strangers),
        positions=shard.inputs.positions,
        consumption=shard.inputs.consumption,
        positions_unknown=shard.inputs.positions_unknown,
        capital_usd={name: _capital(row) for name, row in accounts.siblings.items()},
    )
    return AccountSnapshot(accounts, chosen, shard, inputs, findings=_stranger_findings(chosen, strangers))


def _merged(
    records: Sequence[Record], named: Sequence[Record], profiles: frozenset[str]
) -> tuple[list[Record], list[Record]]:
    """The rows of the account's profiles, each once, and the rows of strangers that name orders of the account."""
    seen = {(row["profile_id"], row["order_id"]) for row in records}
    own, strangers = list(records), []
    for row in named:
        if row["profile_id"] not in profiles:
            strangers.append(row)
        elif (row["profile_id"], row["order_id"]) not in seen:
            own.append(row)
    return own, strangers


def _marked(facts: pd.DataFrame, strangers: Sequence[Record]) -> pd.DataFrame:
    """The facts with a defect where a stranger's row names the order: it is recorded, if in the wrong place."""
    ids = {row[name] for row in strangers for name in ("order_id", "client_order_id") if row[name]}
    if not ids:
        return facts
    hit = facts["order_id"].isin(ids) | facts["client_order_id"].isin(ids)
    return facts.assign(defect=facts["defect"].where(~hit, RECORDED_ELSEWHERE))


def _stranger_findings(chosen: Sequence[str], strangers: Sequence[Record]) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            profile_id=profile,
            stage=Stage.READING,
            reason=RECORDED_ELSEWHERE,
            order_id=str(row["order_id"]),
            trade_id=str(row["trade_id"] or ""),
            symbol=str(row["symbol"] or ""),
            needs_person=True,
            detail={"row_of_profile": str(row["profile_id"])},
        )
        for profile in chosen[:1]
        for row in strangers
    )


def _capital(row: Record) -> Decimal | None:
    return parse_decimal(row.get("allocated_capital_usd"))
