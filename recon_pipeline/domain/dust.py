"""The dust rule: how small a remainder must be, in units and in money, to be closed without evidence."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recon_pipeline.domain.policy import ExitBackfillPolicy
from recon_pipeline.domain.quantities import E9, EXACT, to_e9

_INT64_SAFE = 2**62


def scale(values: NDArray[Any], ratio: Decimal) -> NDArray[Any]:
    """``floor(values * ratio)``, exact; ``values`` and ``ratio`` not negative."""
    numerator, denominator = ratio.as_integer_ratio()
    largest = max(int(values.max()) if len(values) else 0, 1)
    if max(largest * numerator, denominator) >= _INT64_SAFE:
        values = values.astype(object)
    scaled: NDArray[Any] = values * numerator // denominator
    return scaled


def fee_allowance_e9(slices: pd.DataFrame, policy: ExitBackfillPolicy) -> NDArray[Any]:
    """Per slice what the exchange may have kept of the entries as a fee: crypto only, in 1e-9 units.

    Alpaca takes up to 25 bps of the coin that a buy receives; the order's filled quantity stays gross.
    """
    allowance = scale(slices["entry_e9"].to_numpy(), policy.crypto_fee_bps / 10_000)
    return np.where(slices["crypto"].to_numpy(dtype=bool), allowance, allowance * 0)


def dust_threshold_e9(
    slices: pd.DataFrame, policy: ExitBackfillPolicy, *, quantity: NDArray[Any] | None = None, fee: bool = True
) -> NDArray[Any]:
    """Per slice the largest remainder that can be dust: max(absolute, relative x open, crypto fee allowance).

    :param quantity: take the relative part of this instead of the open quantity
    :param fee: count the crypto fee allowance
    """
    base = slices["open_e9"].to_numpy() if quantity is None else quantity
    threshold: NDArray[Any] = np.maximum(scale(base, policy.dust_rel), to_e9(policy.dust_abs_qty, floor=True))
    if fee:
        threshold = np.maximum(threshold, fee_allowance_e9(slices, policy))
    return threshold


def is_affordable(remainder_e9: int, price: Decimal, policy: ExitBackfillPolicy) -> bool:
    """Whether the remainder is worth at most ``dust_max_notional_usd`` at ``price``."""
    return EXACT.multiply(price, remainder_e9) <= EXACT.multiply(policy.dust_max_notional_usd, E9)
