"""The slices of an account's profiles with what only the account and its profiles say of them: scope, owner, crypto.

What does not belong here: how a slice is summed (``slices``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recon_pipeline.domain.frames import SLICES, rows_of
from recon_pipeline.domain.plan import ExitBackfillInputs
from recon_pipeline.domain.slices import build_slices, deduplicate_rows
from recon_pipeline.domain.symbols import symbol_token


def account_slices(account_id: str, rows: pd.DataFrame, orders: pd.DataFrame, members: Sequence[Any]) -> pd.DataFrame:
    """Every trade of an account as SLICES, open or not.

    :param rows: deduplicated LIFECYCLE_ROWS of the account's profiles
    :param orders: EXCHANGE_ORDERS of the account, which say what is crypto
    :param members: rows of PROFILES of the account
    """
    crypto = frozenset(orders["symbol_token"].to_numpy()[orders["crypto"].to_numpy(dtype=bool)])
    slices = build_slices(rows, crypto_tokens=crypto)
    owners = {member.profile_id: member.user_id for member in members}
    users = [
        user or owners[profile]
        for user, profile in zip(slices["user_id"].tolist(), slices["profile_id"].tolist(), strict=True)
    ]
    return slices.assign(
        account_id=pd.Series([account_id] * len(slices), index=slices.index, dtype=object),
        managed=_managed(slices, members),
        user_id=pd.Series(users, index=slices.index, dtype=object),
    )


def slices_of_accounts(inputs: ExitBackfillInputs) -> pd.DataFrame:
    """Every trade of every profile of the snapshot as SLICES, open or not, account by account."""
    parts = []
    for account_id, members in inputs.profiles.groupby("account_id", sort=True):
        own = inputs.lifecycle_rows["profile_id"].isin(list(members["profile_id"]))
        orders = inputs.exchange_orders[inputs.exchange_orders["account_id"] == account_id]
        rows = deduplicate_rows(inputs.lifecycle_rows[own])
        part = account_slices(str(account_id), rows, orders, list(rows_of(members)))
        if len(part):
            parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else SLICES.empty()


def _managed(slices: pd.DataFrame, members: Sequence[Any]) -> NDArray[np.bool_]:
    scopes: dict[str, frozenset[str] | None] = {
        member.profile_id: None
        if member.managed_symbols is None
        else frozenset(symbol_token(symbol) for symbol in member.managed_symbols)
        for member in members
    }
    if all(scope is None for scope in scopes.values()):
        return np.ones(len(slices), dtype=bool)
    pairs = zip(slices["profile_id"], slices["symbol_token"], strict=True)
    # A trade whose symbol can't be read is not hidden: it may be any symbol.
    return np.array(
        [not token or (scope := scopes[profile]) is None or token in scope for profile, token in pairs], dtype=bool
    )
