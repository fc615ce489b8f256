"""What a plan is: proposals and decisions with the evidence they cite, its digest, its ids and its conservation check.

What does not belong here: how a plan comes about (``exit_backfill``) and how it is applied (``recon_pipeline.apply``).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recon_pipeline.domain.frames import CONSUMPTION, LIFECYCLE_ROWS, POSITIONS
from recon_pipeline.domain.quantities import EPSILON_E9, decimal_text, decimal_text_e9
from recon_pipeline.domain.terms import Decision

BACKFILL_PREFIX: Final = "BFILL-"
DUST_PREFIX: Final = "DUST-REMAINDER-"
SAMPLE_SIZE: Final = 5


class ConservationError(AssertionError):
    """A plan does not add up. A defect of this program, never of the data: nothing of the plan may be applied."""


@dataclass(frozen=True)
class ExitBackfillInputs:
    """One consistent snapshot of ledger and exchange, for any number of accounts.

    ``profiles`` must hold every profile of each account that occurs, the ones that are only context with ``selected``
    False: what they hold explains the account's position, and what is tagged for them is nobody else's.
    """

    profiles: pd.DataFrame
    """PROFILES"""
    lifecycle_rows: pd.DataFrame
    """LIFECYCLE_ROWS of any status, backfill rows that were rolled back included"""
    exchange_orders: pd.DataFrame
    """EXCHANGE_ORDERS"""
    positions: pd.DataFrame = field(default_factory=POSITIONS.empty)
    """POSITIONS"""
    pending_rows: pd.DataFrame = field(default_factory=LIFECYCLE_ROWS.empty)
    """LIFECYCLE_ROWS that the ledger holds as open orders; rows of a blocking status in lifecycle_rows count as well"""
    consumption: pd.DataFrame = field(default_factory=CONSUMPTION.empty)
    """CONSUMPTION of batches that were not reverted"""
    existing_order_ids: frozenset[str] = frozenset()
    """Further order ids known to be in the ledger"""
    positions_unknown: frozenset[str] = frozenset()
    """Accounts whose positions could not be read at all"""


@dataclass(frozen=True)
class ProfilePlan:
    """The plan of one profile: what ``recon_pipeline.apply`` applies and what an operator reads."""

    profile_id: str
    user_id: str
    account_id: str
    batch_id: str
    attempted: bool
    skipped_reason: str
    skipped_detail: str
    digest: str
    open_trade_candidates: int
    slices: pd.DataFrame
    trades: pd.DataFrame
    proposals: pd.DataFrame
    decisions: pd.DataFrame
    evidence: pd.DataFrame
    over_exits: pd.DataFrame
    unmanaged: pd.DataFrame

    @cached_property
    def no_go(self) -> list[dict[str, str]]:
        """The NO_GO decisions, one per trade and reason, in the order of the decisions: symbol, trade_id, reason."""
        names = ("decision", "symbol", "trade_id", "reason")
        found = dict.fromkeys(
            (symbol, trade, reason)
            for decision, symbol, trade, reason in zip(*(self.decisions[name] for name in names), strict=True)
            if decision == Decision.NO_GO.value
        )
        return [{"symbol": symbol, "trade_id": trade, "reason": reason} for symbol, trade, reason in found]

    @property
    def no_go_trades(self) -> int:
        """How many trades have a NO_GO decision."""
        return len({row["trade_id"] for row in self.no_go})

    @property
    def no_go_reason_counts(self) -> dict[str, int]:
        """Trades per NO_GO reason, by reason."""
        return dict(sorted(Counter(row["reason"] for row in self.no_go).items()))

    @property
    def no_go_samples(self) -> list[dict[str, str]]:
        """The first few NO_GO trades: symbol, trade and reason."""
        return self.no_go[:SAMPLE_SIZE]


@dataclass(frozen=True)
class ExitBackfillPlan:
    """The plans of every selected profile.

    ``profiles`` has one row per selected profile: profile_id, user_id, account_id, batch_id, attempted, skipped_reason,
    skipped_detail, open_trade_candidates, digest. The other frames are as in ``frames``; ``over_exits`` and
    ``unmanaged`` are SLICES.
    """

    profiles: pd.DataFrame
    slices: pd.DataFrame
    trades: pd.DataFrame
    proposals: pd.DataFrame
    decisions: pd.DataFrame
    evidence: pd.DataFrame
    over_exits: pd.DataFrame
    unmanaged: pd.DataFrame

    def for_profile(self, profile_id: str) -> ProfilePlan:
        """The plan of one selected profile. The evidence is that of its whole account.

        :raises KeyError: the profile was not selected
        """
        rows = self.profiles[self.profiles["profile_id"] == profile_id]
        if rows.empty:
            raise KeyError(f"profile {profile_id!r} is not part of this plan; select it when planning")
        row = rows.iloc[0]

        def own(frame: pd.DataFrame) -> pd.DataFrame:
            if len(self.profiles) == 1 or frame.empty:
                return frame
            return frame[frame["profile_id"] == profile_id].reset_index(drop=True)

        account = self.evidence
        if self.profiles["account_id"].nunique() > 1:
            account = account[account["account_id"] == row["account_id"]].reset_index(drop=True)
        return ProfilePlan(
            profile_id=profile_id,
            user_id=row["user_id"],
            account_id=row["account_id"],
            batch_id=row["batch_id"],
            attempted=bool(row["attempted"]),
            skipped_reason=row["skipped_reason"],
            skipped_detail=row["skipped_detail"],
            digest=row["digest"],
            open_trade_candidates=int(row["open_trade_candidates"]),
            slices=own(self.slices),
            trades=own(self.trades),
            proposals=own(self.proposals),
            decisions=own(self.decisions),
            evidence=account,
            over_exits=own(self.over_exits),
            unmanaged=own(self.unmanaged),
        )


def backfill_order_id(profile_id: str, trade_id: str, exchange_order_id: str, filled_at_iso: str) -> str:
    """``BFILL-<md5(profile:trade:exchange order:filled_at)>``; ``filled_at`` as :func:`iso_ms` spells it."""
    text = f"{profile_id}:{trade_id}:{exchange_order_id}:{filled_at_iso}"
    return BACKFILL_PREFIX + hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def proposals_digest(proposals: pd.DataFrame) -> str:
    """SHA-256 over what would be written and cited, independent of order, clock, batch id and run.

    The same digest means the same rows: it is what a reviewer approves.
    """
    if not len(proposals):
        return _digest([])
    prices: dict[Decimal, str] = {}
    columns: list[list[object]] = [
        [decimal_text_e9(quantity) for quantity in proposals["qty_e9"].tolist()],
        [prices.get(price) or prices.setdefault(price, decimal_text(price)) for price in proposals["price"].tolist()],
    ]
    names = ("order_id", "user_id", "symbol", "side", "exchange_client_order_id", "sub_tag", "matched_by", "reapply")
    columns.extend(proposals[name].tolist() for name in names)
    # The backfill id is unique, so it alone decides the order; it hashes profile, trade, exchange order and time, and
    # stands for them.
    order = np.argsort(np.array(proposals["order_id"].tolist(), dtype=np.bytes_), kind="stable")
    return _digest([_in_order(column, order) for column in columns])


def _in_order(column: list[object], order: NDArray[np.int64]) -> object:
    """The column in the order of the ids; its one value where all are the same."""
    if column.count(column[0]) == len(column):
        return column[0]
    return np.array(column, dtype=object)[order].tolist()


def _digest(columns: list[object]) -> str:
    return hashlib.sha256(json.dumps(columns, separators=(",", ":")).encode()).hexdigest()


def check_conservation(trades: pd.DataFrame, evidence: pd.DataFrame) -> dict[str, str]:
    """Check both conservation identities and return their totals as decimal text, by name.

    :raises ConservationError: naming the first order or trade that does not add up
    """
    executed, represented, allocated, excess = (
        evidence[name].to_numpy() for name in ("executed_e9", "represented_e9", "allocated_e9", "excess_e9")
    )
    wrong = executed != represented + allocated + excess
    wrong |= (represented < 0) | (allocated < 0) | (excess < 0)
    if wrong.any():
        bad = evidence.iloc[int(wrong.argmax())]
        raise ConservationError(
            f"exchange order {bad['order_id']}: executed {bad['executed_e9']} is not represented {bad['represented_e9']}"
            f" + allocated {bad['allocated_e9']} + excess {bad['excess_e9']} (1e-9 units)"
        )
    opened, taken, dust, remaining = (
        trades[name].to_numpy() for name in ("open_e9", "allocated_e9", "dust_e9", "remaining_e9")
    )
    wrong = opened != taken + dust + remaining
    wrong |= (taken < 0) | (dust < 0) | (remaining < 0)
    wrong |= np.asarray(remaining > EPSILON_E9, dtype=bool) & (trades["reason"].to_numpy() == "")
    if wrong.any():
        bad = trades.iloc[int(wrong.argmax())]
        raise ConservationError(
            f"trade {bad['trade_id']} of profile {bad['profile_id']}: open {bad['open_e9']} is not allocated"
            f" {bad['allocated_e9']} + dust {bad['dust_e9']} + remaining {bad['remaining_e9']} (1e-9 units),"
            f" reason {bad['reason']!r}"
        )
    return {
        "executed": _total(executed),
        "represented": _total(represented),
        "allocated": _total(allocated),
        "excess": _total(excess),
        "open": _total(opened),
        "dust": _total(dust),
        "remaining": _total(remaining),
    }


def _total(values: NDArray[Any]) -> str:
    # int64 quantities are chosen so that their total fits; see quantities.integer_array.
    return decimal_text_e9(int(values.sum()) if values.dtype != object else sum(values.tolist()))
