"""Heuristic attribution, where the operator allows it: by a quantity that is unique both ways.

An order matches a trade when its free quantity lies within the trade's dust threshold of what the trade still needs and it
was executed late enough. It is assigned only where that is the trade's only order *and* the order's only trade: a choice
between two would be a guess. Work is O(n log n), however many quantities are equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def unique_pairs(
    *,
    trade_group: Ints,
    trade_low: NDArray[Any],
    trade_high: NDArray[Any],
    trade_after: Ints,
    order_group: Ints,
    order_quantity: NDArray[Any],
    order_time: Ints,
) -> Ints:
    """The mutually unique matches: per order the position of its trade, -1 where there is none or more than one.

    :param trade_group: symbol and exit side of each trade, as a code shared with ``order_group``
    :param trade_low: smallest matching quantity; ``trade_high`` the largest. Within a group both rise together.
    :param trade_after: earliest matching execution time
    """
    matches = np.full(len(order_group), -1, dtype=np.int64)
    if not len(trade_group) or not len(order_group):
        return matches
    # Quantities as dense ranks, so that (group, quantity) is one sortable integer.
    _, rank = np.unique(np.concatenate([trade_low, trade_high, order_quantity]), return_inverse=True)
    rank = rank.reshape(-1).astype(np.int64)
    count = len(trade_low)
    low, high, quantity = rank[:count], rank[count : 2 * count], rank[2 * count :]
    width = int(rank.max()) + 1
    by_trade = np.lexsort((high, low, trade_group))
    low_key = (trade_group * width + low)[by_trade]
    high_key = (trade_group * width + high)[by_trade]
    by_order = np.lexsort((quantity, order_group))
    order_key = order_group * width + quantity
    sorted_order_key = order_key[by_order]

    only_trade = _only_one_below(
        trade_after[by_trade],
        np.searchsorted(high_key, order_key, "left"),
        np.searchsorted(low_key, order_key, "right"),
        order_time,
    )
    only_order = _only_one_below(
        -order_time[by_order],
        np.searchsorted(sorted_order_key, trade_group * width + low, "left"),
        np.searchsorted(sorted_order_key, trade_group * width + high, "right"),
        -trade_after,
    )
    found = np.flatnonzero(only_trade >= 0)
    trade = by_trade[only_trade[found]]
    back = only_order[trade]
    mutual = (back >= 0) & (by_order[np.maximum(back, 0)] == found)
    matches[found[mutual]] = trade[mutual]
    return matches


def _only_one_below(values: Ints, start: Ints, stop: Ints, limit: Ints) -> Ints:
    """Per query, the one position in ``[start, stop)`` whose value is at most ``limit``; -1 for none or several.

    Answered from the two smallest values of each range, by doubling windows.
    """
    out = np.full(len(start), -1, dtype=np.int64)
    length = stop - start
    queries = np.flatnonzero(length > 0)
    if not len(queries):
        return out
    level = np.zeros(len(queries), dtype=np.int64)
    longest = length[queries]
    while (longest >> (level + 1)).any():
        level[(longest >> (level + 1)) > 0] += 1
    # first[i], second[i]: positions of the two smallest values in the window of 2**k that begins at i.
    size = len(values)
    padded = np.r_[values, np.iinfo(np.int64).max]
    first = np.arange(size, dtype=np.int64)
    second = np.full(size, size, dtype=np.int64)
    for k in range(int(level.max()) + 1):
        if k:
            half = 1 << (k - 1)
            keep = size - (1 << k) + 1
            first, second = _two_smallest(
                padded, first[:keep], second[:keep], first[half : half + keep], second[half : half + keep]
            )
        at = queries[level == k]
        if len(at):
            left, right = start[at], stop[at] - (1 << k)
            one, two = _two_smallest(padded, first[left], second[left], first[right], second[right])
            single = (padded[one] <= limit[at]) & ((two == size) | (padded[two] > limit[at]))
            out[at[single]] = one[single]
    return out


def _two_smallest(values: Ints, a1: Ints, a2: Ints, b1: Ints, b2: Ints) -> tuple[Ints, Ints]:
    """The positions of the two smallest values of two windows that may overlap."""
    swap = values[b1] < values[a1]
    one, other = np.where(swap, b1, a1), np.where(swap, a1, b1)
    one_next, other_next = np.where(swap, b2, a2), np.where(swap, a2, b2)
    # The loser's best may be the winner itself, seen from the other window.
    other = np.where(other == one, other_next, other)
    one_next = np.where(one_next == one, len(values) - 1, one_next)
    two = np.where(values[one_next] < values[other], one_next, other)
    two = np.where(two == one, len(values) - 1, two)
    return one, two
