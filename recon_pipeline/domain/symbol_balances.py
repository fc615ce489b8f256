"""Balances: what the ledger leaves open in a symbol, over every profile of the account, against what the account holds.

Profiles share an account's position, so only their sum can be compared with it. What does not belong here: what becomes of
a symbol that is out of line (``position_parity``) and why it is (``root_causes``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recon_pipeline.domain.allocation import sum_by
from recon_pipeline.domain.cycle_policy import PositionParityPolicy
from recon_pipeline.domain.dust import scale
from recon_pipeline.domain.positions import AccountPositions
from recon_pipeline.domain.quantities import EPSILON_E9, to_e9
from recon_pipeline.domain.terms import BUY, SELL


@dataclass(frozen=True)
class Balance:
    """One symbol of one account in which the ledger has open (or undecidable) trades. Quantities are signed 1e-9 units."""

    account_id: str
    token: str
    ledger_e9: int
    """sum of the open quantities of every profile on the account, short negative"""
    position_e9: int | None
    """what the account holds; None where the reading does not say"""
    tolerance_e9: int
    """the largest difference that is none: the dust quantity, or the crypto fee allowance on the open trades' entries"""
    flat_e9: int
    """the largest position that is none"""
    trades: tuple[int, ...]
    """positions of the trades in the frame of open trades"""
    mixed: bool
    """trades on both sides"""
    decidable: bool
    """no trade of the symbol, or without a symbol, has a defect: the ledger's sum can be trusted"""

    @property
    def difference_e9(self) -> int:
        """What the ledger would have to gain to be in line. Only where the position is known."""
        if self.position_e9 is None:
            raise ValueError(f"the position of {self.token} on account {self.account_id} is not known")
        return self.position_e9 - self.ledger_e9

    @property
    def in_line(self) -> bool:
        """The difference is within the tolerance."""
        return abs(self.difference_e9) <= self.tolerance_e9

    @property
    def flat(self) -> bool:
        """The exchange is known to hold none of it."""
        return self.position_e9 is not None and abs(self.position_e9) <= self.flat_e9


def open_trades(slices: pd.DataFrame, account_of: Mapping[str, str]) -> pd.DataFrame:
    """The trades of SLICES that leave something open, or can't be decided, with two columns more.

    ``account_id`` is that of the profile whatever the slice says, ``signed_e9`` the open quantity, short negative and 0
    where the entry side is not known. Sorted by (account, symbol token, profile, trade).

    :raises ValueError: a slice names a profile that ``account_of`` does not hold
    """
    kept = slices[
        np.asarray(abs(slices["open_e9"].to_numpy()) > EPSILON_E9, dtype=bool) | (slices["defect"] != "").to_numpy()
    ]
    unknown = sorted(set(kept["profile_id"]) - set(account_of))
    if unknown:
        raise ValueError(f"slices name profile {unknown[0]!r}, which inputs.profiles does not hold; add it as context")
    sides = kept["entry_side"].to_numpy()
    sign = np.where(sides == BUY, 1, np.where(sides == SELL, -1, 0))
    kept = kept.assign(
        account_id=[account_of[profile] for profile in kept["profile_id"]], signed_e9=kept["open_e9"].to_numpy() * sign
    )
    return kept.sort_values(["account_id", "symbol_token", "profile_id", "trade_id"], ignore_index=True)


def symbol_balances(
    trades: pd.DataFrame, positions: Mapping[str, AccountPositions], policy: PositionParityPolicy
) -> list[Balance]:
    """The balance of every (account, symbol token) of :func:`open_trades`, in its order.

    Trades without a symbol may hold any: their own balance has no position, and no symbol of their account is decidable.
    """
    if trades.empty:
        return []
    accounts, tokens = trades["account_id"].to_numpy(), trades["symbol_token"].to_numpy()
    changed = np.r_[True, (accounts[1:] != accounts[:-1]) | (tokens[1:] != tokens[:-1])]
    starts, group = np.flatnonzero(changed), np.cumsum(changed) - 1
    ends = np.r_[starts[1:], len(trades)]
    signed = trades["signed_e9"].to_numpy()
    ledger = sum_by(group, signed, len(starts))
    allowance = sum_by(group, fee_allowance_e9(trades, policy), len(starts))
    defective = (trades["defect"] != "").to_numpy(dtype=bool)
    bad = np.logical_or.reduceat(defective, starts)
    longs = np.logical_or.reduceat(np.asarray(signed > 0, dtype=bool), starts)
    shorts = np.logical_or.reduceat(np.asarray(signed < 0, dtype=bool), starts)
    anywhere = set(accounts[defective & (tokens == "")])
    dust = to_e9(policy.dust_abs_qty, floor=True)
    return [
        Balance(
            account_id=accounts[start],
            token=tokens[start],
            ledger_e9=int(ledger[index]),
            position_e9=positions[accounts[start]].quantity(tokens[start]) if tokens[start] else None,
            tolerance_e9=max(dust, int(allowance[index])),
            flat_e9=dust,
            trades=tuple(range(int(start), int(end))),
            mixed=bool(longs[index] and shorts[index]),
            decidable=not bad[index] and accounts[start] not in anywhere,
        )
        for index, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def fee_allowance_e9(slices: pd.DataFrame, policy: PositionParityPolicy) -> NDArray[Any]:
    """Per slice what the exchange may have kept of the entries as a fee: crypto only."""
    allowance = scale(slices["entry_e9"].to_numpy(), policy.crypto_fee_bps / 10_000)
    return np.where(slices["crypto"].to_numpy(dtype=bool), allowance, allowance * 0)


def shares_e9(quantities: list[int], total: int) -> list[int]:
    """``total`` divided in proportion to ``quantities`` (not negative, not all zero), to the last unit."""
    whole = sum(quantities)
    marks = [0]
    for quantity in quantities:
        marks.append(marks[-1] + quantity)
    return [total * end // whole - total * start // whole for start, end in pairwise(marks)]
