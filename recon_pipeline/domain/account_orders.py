"""One account's ledger rows and exchange orders side by side: what the rules of orders look at.

What belongs here: cutting a snapshot into accounts, and look-ups in one of them. What does not: decisions.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recon_pipeline.domain.attribution import is_bot_id
from recon_pipeline.domain.cycle_frames import LEDGER_ORDERS, CycleInputs
from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.order_matching import LIVE, Matches, class_of_status, distinct_rows, match_rows
from recon_pipeline.domain.ownership import distinct_facts
from recon_pipeline.domain.stand_ins import STAND_IN_PREFIXES
from recon_pipeline.domain.symbols import symbol_token

_EXCHANGE_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_LIVE: Final = frozenset(kind.value for kind in LIVE)


@cache
def _row_type() -> Any:
    return namedtuple("LedgerOrder", LEDGER_ORDERS.names)  # noqa: PYI024  the fields are the schema's


@dataclass(frozen=True)
class AccountOrders:
    """The rows of every profile of an account, its exchange orders, and which row speaks of which order."""

    account_id: str
    profiles: Mapping[str, Any]
    """its profiles' rows of PROFILES, by profile"""
    rows: pd.DataFrame
    """LEDGER_ORDERS, each row once"""
    facts: pd.DataFrame
    """ORDER_FACTS, each order once"""
    matches: Matches

    def row(self, position: int) -> Any:
        """One row as a named tuple of its columns. Most rows of a ledger are in line and never looked at."""
        return _row_type()._make(column[position] for column in self._columns)

    @cached_property
    def _columns(self) -> list[NDArray[Any]]:
        return [self.rows[name].to_numpy() for name in LEDGER_ORDERS.names]

    @cached_property
    def fact_list(self) -> list[Any]:
        """The orders as named tuples, by position."""
        return list(rows_of(self.facts))

    @property
    def wanted(self) -> list[str]:
        """The profiles that decisions are wanted for."""
        return [name for name, member in self.profiles.items() if member.selected]

    def manages(self, profile_id: str, token: str) -> bool:
        """Whether a symbol is in the profile's scope; one that can't be read may be any symbol."""
        symbols = self.profiles[profile_id].managed_symbols
        return symbols is None or not token or token in {symbol_token(symbol) for symbol in symbols}

    @cached_property
    def unmatched(self) -> list[int]:
        """Positions of the rows that may still execute and that no id matches with an order."""
        matches = self.matches
        free = np.flatnonzero((matches.order_of < 0) & ~matches.two_orders)
        statuses, ids = self.rows["status"].to_numpy(), self.rows["order_id"].to_numpy()
        return [
            int(at)
            for at in free
            if ids[at] and class_of_status(statuses[at]).value in _LIVE and not ids[at].startswith(STAND_IN_PREFIXES)
        ]

    def rows_by_order(self, orders: set[int]) -> dict[int, list[Any]]:
        """The rows of the given orders, by position of the order."""
        found: dict[int, list[Any]] = {}
        for at in np.flatnonzero(np.isin(self.matches.order_of, sorted(orders))).tolist():
            found.setdefault(int(self.matches.order_of[at]), []).append(self.row(at))
        return found


def accounts_of(inputs: CycleInputs) -> Iterator[AccountOrders]:
    """Yield every account that was read completely and has a selected profile, in the order of their ids."""
    for account_id, members in inputs.profiles.groupby("account_id", sort=True):
        if not members["selected"].any() or (members["evidence_defect"] != "").any():
            continue
        rows = distinct_rows(inputs.ledger_orders[inputs.ledger_orders["profile_id"].isin(list(members["profile_id"]))])
        facts = distinct_facts(inputs.order_facts[inputs.order_facts["account_id"] == account_id])
        facts = facts[facts["order_id"] != ""].reset_index(drop=True)
        profiles = {member.profile_id: member for member in rows_of(members.sort_values("profile_id"))}
        yield AccountOrders(str(account_id), profiles, rows, facts, match_rows(rows, facts))


def names_an_order(row: Any) -> bool:
    """Whether an id of the row is one that an exchange or a bot gives to an order: it is that order's and no other's."""
    return any(_EXCHANGE_ID.fullmatch(key) or is_bot_id(key) for key in (row.order_id, row.client_order_id) if key)
