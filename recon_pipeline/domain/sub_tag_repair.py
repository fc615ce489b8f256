"""Sub-tag repair: missing attribution tags of ledger rows, from what the exchange recorded or the ids prove; never a quantity.

A tag is proven, in this order, by
  exchange_tag      the row's order carries a well-formed tag of the row's profile, and of its trade or of none: copied as it is;
  client_order_id   the client order id of the row or its order names the row's profile and trade: the tag of both is composed;
  trade_rows        another row of the trade carries a tag that names profile and trade: copied as it is.
Every token must stand for one profile of the account and one trade of the profile. What does not belong here: what a tag is good
for (``attribution``, ``position_parity``).

Counters, per profile; ``scanned`` is the sum of the others but ``repaired``:
  scanned         rows without a tag that executed something or may yet; backfill rows and synthetic exits are not looked at
  repairable      a tag is proven and planned
  unproven        nothing proves one
  ambiguous       what would prove one fits several profiles or trades
  contradictory   a key of the order, or a tag of the trade, names another profile or trade: a finding for a person
  postponed       proven, left for a later cycle because this one repairs enough
  repaired        how many were written: 0 here, the caller knows
  unsupported     1 where the table has no column for tags (then nothing else is counted), else 0; never part of the sum
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from recon_pipeline.domain.attribution import KnownTrades, is_bot_id
from recon_pipeline.domain.corrections import Finding, Handler, OrderChange, Stage
from recon_pipeline.domain.cycle_frames import CycleInputs
from recon_pipeline.domain.cycle_policy import SubTagRepairPolicy
from recon_pipeline.domain.frames import LIFECYCLE_ROWS, rows_of
from recon_pipeline.domain.order_keys import Kind, read_keys
from recon_pipeline.domain.ownership import distinct_facts
from recon_pipeline.domain.quantities import EPSILON_E9
from recon_pipeline.domain.slices import build_slices, deduplicate_rows
from recon_pipeline.domain.stage_plan import StagePlan, in_finding_order, owners_of, selected_profiles
from recon_pipeline.domain.stand_ins import STAND_IN_PREFIXES, distinct_rows
from recon_pipeline.domain.tags import TAG_PREFIX, parse_sub_tag, tag_token
from recon_pipeline.domain.terms import FINAL_UNFILLED_STATUSES

COUNTERS: Final = (
    "scanned",
    "repairable",
    "unproven",
    "ambiguous",
    "contradictory",
    "postponed",
    "repaired",
    "unsupported",
)


class _Proof(NamedTuple):
    """What is proven of one row's tag: a tag with its rule, or the counter that says why not."""

    counter: str
    sub_tag: str = ""
    rule: str = ""
    exchange_order_id: str = ""
    client_order_id: str = ""


def plan_sub_tag_repair(inputs: CycleInputs, policy: SubTagRepairPolicy, *, supported: bool) -> StagePlan:
    """Plan the missing tags of every selected profile whose account was read completely.

    Rows of open trades come first, then the newest; at most ``policy.max_rows`` per profile.

    :param supported: whether the table has a column for tags
    """
    members, skipped = selected_profiles(inputs.profiles)
    owners = owners_of(inputs.profiles)
    if not supported:
        found = tuple(
            Finding(member.profile_id, Stage.SUB_TAG_REPAIR, "unsupported_column", detail={"column": "sub_tag"})
            for member in members
        )
        nothing = {name: int(name == "unsupported") for name in COUNTERS}
        return StagePlan(
            stage=Stage.SUB_TAG_REPAIR,
            profiles=owners,
            counts={member.profile_id: dict(nothing) for member in members},
            skipped=skipped,
            findings=in_finding_order(found),
        )
    counts: dict[str, Mapping[str, int]] = {}
    changes: list[OrderChange] = []
    findings: list[Finding] = []
    accounts: dict[str, _Account] = {}
    for member in sorted(members, key=lambda member: str(member.profile_id)):
        if member.account_id not in accounts:
            accounts[member.account_id] = _Account.of(inputs, member.account_id)
        counter, planned, left = accounts[member.account_id].plan(member.profile_id, policy.max_rows)
        counts[member.profile_id] = counter
        changes.extend(planned)
        findings.extend(left)
    return StagePlan(
        stage=Stage.SUB_TAG_REPAIR,
        profiles=owners,
        counts=counts,
        skipped=skipped,
        changes=tuple(changes),
        findings=in_finding_order(findings),
    )


@dataclass(frozen=True)
class _Account:
    """One account's rows and orders, as the repair asks for them."""

    known: KnownTrades
    rows: Mapping[str, list[Any]]
    """rows by profile"""
    orders: Mapping[str, tuple[Any, ...]]
    """orders by either of their ids"""
    tags: Mapping[tuple[str, str], frozenset[str]]
    """well-formed tags that name a trade, of the rows of each trade"""
    open_trades: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, inputs: CycleInputs, account_id: str) -> _Account:
        members = inputs.profiles["profile_id"][inputs.profiles["account_id"] == account_id].tolist()
        ledger = distinct_rows(inputs.ledger_orders[inputs.ledger_orders["profile_id"].isin(members)])
        rows: dict[str, list[Any]] = {}
        tags: dict[tuple[str, str], set[str]] = {}
        for row in rows_of(ledger):
            rows.setdefault(row.profile_id, []).append(row)
            tag = parse_sub_tag(row.sub_tag) if row.sub_tag and row.trade_id else None
            if tag is not None and tag.trade_token:
                tags.setdefault((row.profile_id, row.trade_id), set()).add(row.sub_tag)
        orders: dict[str, tuple[Any, ...]] = {}
        for fact in rows_of(distinct_facts(inputs.order_facts[inputs.order_facts["account_id"] == account_id])):
            for key in {fact.order_id, fact.client_order_id} - {""}:
                orders[key] = (*orders.get(key, ()), fact)
        lifecycle = ledger.rename(columns={"executed_e9": "qty_e9"})[LIFECYCLE_ROWS.names]
        slices = build_slices(deduplicate_rows(lifecycle), crypto_tokens=frozenset())
        pairs = zip(ledger["profile_id"], ledger["trade_id"], strict=True)
        return cls(
            known=KnownTrades.of(members, (pair for pair in pairs if pair[1])),
            rows=rows,
            orders=orders,
            tags={trade: frozenset(found) for trade, found in tags.items()},
            open_trades=frozenset(
                (row.profile_id, row.trade_id) for row in rows_of(slices) if abs(row.open_e9) > EPSILON_E9
            ),
        )

    def plan(self, profile_id: str, limit: int) -> tuple[dict[str, int], list[OrderChange], list[Finding]]:
        """The counters, changes and findings of one profile."""
        missing = [row for row in self.rows.get(profile_id, ()) if _lacks_tag(row)]
        missing.sort(
            key=lambda row: ((profile_id, row.trade_id) not in self.open_trades, -int(row.time_ms), row.order_id)
        )
        counter: Counter[str] = Counter(scanned=len(missing))
        changes: list[OrderChange] = []
        findings: list[Finding] = []
        for row in missing:
            proof = self._proof(row)
            if proof.counter == "repairable" and len(changes) >= limit:
                counter["postponed"] += 1
                continue
            counter[proof.counter] += 1
            if proof.counter == "repairable":
                changes.append(_change(row, proof))
            elif proof.counter == "contradictory":
                findings.append(_finding(row, proof))
        return {name: counter[name] for name in COUNTERS}, changes, findings

    def _proof(self, row: Any) -> _Proof:
        orders = list({id(o): o for key in (row.order_id, row.client_order_id) for o in self._named(key)}.values())
        if len(orders) > 1:
            return _Proof("ambiguous")
        order_id = orders[0].order_id if orders else ""
        tag = orders[0].sub_tag if orders else ""
        clients = {row.client_order_id, row.order_id, *(order.client_order_id for order in orders)}
        bots = sorted(client for client in clients if is_bot_id(client))
        if len(bots) > 1:
            return _Proof("contradictory", exchange_order_id=order_id, client_order_id=bots[0])
        client = bots[0] if bots else ""
        claim = read_keys("", tag, client, self.known)
        unclear = _Proof("contradictory", tag, "", order_id, client)
        if claim.kind in {Kind.FOREIGN, Kind.CONTRADICTORY}:
            return unclear
        if claim.kind == Kind.AMBIGUOUS:
            return _Proof("ambiguous")
        if claim.kind == Kind.OWNED and (claim.profile_id, claim.trade_id) != (
            row.profile_id,
            row.trade_id or claim.trade_id,
        ):
            return unclear
        if claim.kind == Kind.UNATTRIBUTED and (claim.profile_id not in {"", row.profile_id} or claim.names_trade):
            return unclear
        read = parse_sub_tag(tag)
        if read is not None:
            if read.trade_token and row.trade_id and not self._unambiguous(row):
                return _Proof("ambiguous")
            return _Proof("repairable", tag, "exchange_tag", order_id, client)
        if not row.trade_id:
            return _Proof("unproven")
        if client and claim.kind == Kind.OWNED:
            if not self._unambiguous(row):
                return _Proof("ambiguous")
            composed = f"{TAG_PREFIX}:{tag_token(row.profile_id)}:{tag_token(row.trade_id)}"
            return _Proof("repairable", composed, "client_order_id", order_id, client)
        return self._proof_of_trade(row)

    def _proof_of_trade(self, row: Any) -> _Proof:
        """What the tags of the trade's other rows prove."""
        tags = self.tags.get((row.profile_id, row.trade_id), frozenset())
        if not tags:
            return _Proof("unproven")
        wanted = (tag_token(row.profile_id), tag_token(row.trade_id))
        if any(parse_sub_tag(tag) != wanted for tag in tags):
            return _Proof("contradictory", min(tags))
        if not self._unambiguous(row):
            return _Proof("ambiguous")
        return _Proof("repairable", min(tags), "trade_rows")

    def _named(self, key: str) -> Iterable[Any]:
        return self.orders.get(key, ()) if key else ()

    def _unambiguous(self, row: Any) -> bool:
        """Whether the tokens of the row's profile and trade stand for them alone."""
        profile, trade = tag_token(row.profile_id), tag_token(row.trade_id)
        if not (profile and trade):
            return False
        return self.known.with_token(profile) == (row.profile_id,) and self.known.tagged(row.profile_id, trade) == (
            row.trade_id,
        )


def _lacks_tag(row: Any) -> bool:
    """Whether a tag is missing that somebody may ask for: the row executed something, or may yet.

    The pipeline's own rows are left alone: a backfill row that was changed since could not be rolled back any more.
    """
    if row.sub_tag or not row.order_id or row.order_id.startswith(STAND_IN_PREFIXES):
        return False
    return row.status not in FINAL_UNFILLED_STATUSES


def _change(row: Any, proof: _Proof) -> OrderChange:
    return OrderChange(
        profile_id=row.profile_id,
        trade_id=row.trade_id,
        order_id=row.order_id,
        handler=Handler.SUB_TAG,
        values={"sub_tag": proof.sub_tag},
        expected=row.record,
        cause={
            "rule": proof.rule,
            "sub_tag": proof.sub_tag,
            "exchange_order_id": proof.exchange_order_id,
            "client_order_id": proof.client_order_id,
        },
    )


def _finding(row: Any, proof: _Proof) -> Finding:
    return Finding(
        profile_id=row.profile_id,
        stage=Stage.SUB_TAG_REPAIR,
        reason="contradictory_sub_tag",
        order_id=row.order_id,
        trade_id=row.trade_id,
        symbol=row.symbol,
        exchange_order_id=proof.exchange_order_id,
        needs_person=True,
        detail={"sub_tag": proof.sub_tag, "client_order_id": proof.client_order_id},
    )
