"""Deterministic orders: by numbers first, by text only where the numbers tie, so that no input order decides anything.

Sorting text is what costs; most instants differ, so most rows never get that far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def sorted_positions(numbers: Sequence[NDArray[Any]], texts: Sequence[NDArray[Any]]) -> Ints:
    """Positions in ascending order of ``numbers``, most significant first, then of ``texts``."""
    order = np.lexsort(tuple(reversed(numbers)))
    if len(order) < 2:
        return order
    same = np.ones(len(order) - 1, dtype=bool)
    for key in numbers:
        same &= np.asarray(key[order][1:] == key[order][:-1], dtype=bool)
    tied = np.r_[same, False] | np.r_[False, same]
    if not tied.any():
        return order
    subset = order[tied]
    ranks = [pd.factorize(text[subset], sort=True)[0] for text in texts]
    within = np.lexsort((*reversed(ranks), *(key[subset] for key in reversed(numbers))))
    order[tied] = subset[within]
    return order
