"""Allocation of evidence to trades: oldest first, never more than open, never more than an order has left.

What does not belong here: which order belongs to which trade (``attribution``, ``matching``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_pipeline.domain.quantities import EPSILON_E9

Ints = NDArray[np.int64]


def allocate(trade: Ints, capacity: NDArray[Any], open_by_trade: NDArray[Any]) -> NDArray[Any]:
    """How much each order gives to its trade.

    :param trade: per order the position of its trade in ``open_by_trade``, orders sorted oldest first
    :param capacity: per order what is left of it, above the epsilon
    :param open_by_trade: per trade what is open
    :returns: per order, in the order given, the quantity it gives; 0 where its trade is already covered

    A trade that is open by the epsilon or less takes nothing more.
    """
    if not len(trade):
        return capacity[:0]
    order = np.argsort(trade, kind="stable")
    sorted_trade, given = trade[order], capacity[order]
    starts = np.flatnonzero(np.r_[True, sorted_trade[1:] != sorted_trade[:-1]])
    group = np.cumsum(np.r_[True, sorted_trade[1:] != sorted_trade[:-1]]) - 1
    running = np.cumsum(given)
    before_group = (running[starts] - given[starts])[group]
    left = open_by_trade[sorted_trade] - (running - given - before_group)
    taken = np.where(left > EPSILON_E9, np.minimum(given, left), given * 0)
    out = np.empty_like(taken)
    out[order] = taken
    return out


def sum_by(index: Ints, values: NDArray[Any], size: int) -> NDArray[Any]:
    """Sums of ``values`` per ``index`` in ``range(size)``, exact for int64 and Python ints alike."""
    out = np.zeros(size, dtype=values.dtype if len(values) else np.int64)
    np.add.at(out, index, values)
    return out
