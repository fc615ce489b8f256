"""The state of one account while its plan is made: what goes in, what the allocation says, what comes out.

What does not belong here: any rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recon_pipeline.domain.attribution import Attributions
from recon_pipeline.domain.positions import AccountPositions
from recon_pipeline.domain.terms import BUY, SELL

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class AccountState:
    """The open trades of one account and what surrounds them; arrays are aligned with ``slices``."""

    slices: pd.DataFrame
    own: Bools
    """the profile is selected and attempted"""
    managed: Bools
    defective: Bools
    pending: Bools
    positions: AccountPositions
    projected: dict[str, int]
    """signed quantity that the ledger holds per symbol token, before the plan"""
    dust: NDArray[Any]
    """largest remainder that can be dust"""
    existing_order_ids: frozenset[str]

    @cached_property
    def columns(self) -> dict[str, list[Any]]:
        """The slices as plain lists by column, for the loops over single trades."""
        return {name: self.slices[name].tolist() for name in self.slices.columns}

    @cached_property
    def exit_side(self) -> NDArray[Any]:
        """The side that closes each trade; empty where the entry side is not known."""
        entry = self.slices["entry_side"].to_numpy()
        return np.where(entry == BUY, SELL, np.where(entry == SELL, BUY, ""))


@dataclass(frozen=True)
class Allocated:
    """The allocation of one account; arrays are aligned with its orders, oldest first."""

    trade: Ints
    """position of the order's trade in the slices, -1 for none"""
    taken: NDArray[Any]
    method: NDArray[Any]
    reasons: NDArray[Any]
    """why nothing was taken; empty where something was"""
    attributions: Attributions


@dataclass(frozen=True)
class Outcome:
    """The plan of one account, in frames as in ``plan.ExitBackfillPlan``."""

    slices: pd.DataFrame
    trades: pd.DataFrame
    proposals: pd.DataFrame
    decisions: pd.DataFrame
    evidence: pd.DataFrame
    over_exits: pd.DataFrame
    unmanaged: pd.DataFrame
