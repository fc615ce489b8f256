"""Unique quantity matching and allocation against plain, slow statements of the same rules."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recon_pipeline.domain.allocation import allocate, sum_by
from recon_pipeline.domain.matching import unique_pairs

SMALL = st.integers(0, 12)
TRADE = st.tuples(st.integers(0, 2), SMALL, st.integers(0, 3), st.integers(0, 6))
ORDER = st.tuples(st.integers(0, 2), SMALL, st.integers(0, 6))


@given(st.lists(TRADE, max_size=9), st.lists(ORDER, max_size=9), st.sampled_from([1, 10**15]))
def test_a_match_is_unique_both_ways(
    trades: list[tuple[int, int, int, int]], orders: list[tuple[int, int, int]], unit: int
) -> None:
    # A tolerance that grows with the quantity, so that low and high rise together.
    bounds = [(q * unit - min(t, q) * unit // 4, q * unit + min(t, q) * unit // 4) for _, q, t, _ in trades]
    if len({t for _, _, t, _ in trades}) > 1:
        bounds = [(q * unit - unit, q * unit + unit) for _, q, _, _ in trades]

    def fits(t: int, o: int) -> bool:
        low, high = bounds[t]
        same = trades[t][0] == orders[o][0]
        return same and low <= orders[o][1] * unit <= high and orders[o][2] >= trades[t][3]

    expected = []
    for o in range(len(orders)):
        mine = [t for t in range(len(trades)) if fits(t, o)]
        lonely = len(mine) == 1 and [other for other in range(len(orders)) if fits(mine[0], other)] == [o]
        expected.append(mine[0] if lonely else -1)

    def ints(values: list[int]) -> np.ndarray:
        return np.array(values, dtype=np.int64)

    found = unique_pairs(
        trade_group=ints([t[0] for t in trades]),
        trade_low=ints([low for low, _ in bounds]),
        trade_high=ints([high for _, high in bounds]),
        trade_after=ints([t[3] for t in trades]),
        order_group=ints([o[0] for o in orders]),
        order_quantity=ints([o[1] * unit for o in orders]),
        order_time=ints([o[2] for o in orders]),
    )
    assert found.tolist() == expected


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(11, 60)), max_size=10),
    st.sampled_from([1, 10**20]),
)
def test_oldest_first_and_never_more_than_open(opened: list[int], orders: list[tuple[int, int]], unit: int) -> None:
    orders = [(trade % len(opened), quantity) for trade, quantity in orders]
    left, expected = [units * unit for units in opened], []
    for trade, quantity in orders:
        given_now = min(quantity * unit, left[trade]) if left[trade] > 10 else 0
        left[trade] -= given_now
        expected.append(given_now)
    kind = object if unit > 1 else np.int64
    target = np.array([trade for trade, _ in orders], dtype=np.int64)
    given_to = allocate(
        target, np.array([q * unit for _, q in orders], dtype=kind), np.array([o * unit for o in opened], dtype=kind)
    )
    assert given_to.tolist() == expected
    assert sum_by(target, given_to, len(opened)).tolist() == [
        o * unit - rest for o, rest in zip(opened, left, strict=True)
    ]
