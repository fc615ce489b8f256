"""The columns of the frames that only the cycle needs, and the snapshot that its stages decide from.

What belongs here: schemas and the inputs of the stages. What does not: parsing (``order_readings``) and decisions.
The conventions are those of ``frames``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import pandas as pd

from recon_pipeline.domain.frames import CONSUMPTION, POSITIONS, Column, Schema

_E9 = "1e-9 units of the asset"
_MS = "ms since 1970, UTC"

LEDGER_ORDERS = Schema(
    "ledger_orders",
    (
        Column("profile_id", "text", "profile that wrote the row"),
        Column("user_id", "text", "owner"),
        Column("order_id", "text", "key of the row: the exchange's id, the client's, BFILL-... or PARITY-..."),
        Column("client_order_id", "text", "client order id, where the ledger keeps it"),
        Column("trade_id", "text", "trade that the order belongs to"),
        Column("symbol", "text", "as the ledger spells it"),
        Column("symbol_token", "text", "upper case letters and digits of the symbol; what is compared"),
        Column("side", "text", "BUY or SELL"),
        Column("action", "text", "ENTRY or EXIT where the row says so; never inferred"),
        Column("status", "text", "normalised order status"),
        Column("ordered_e9", "quantity", "qty, else quantity, whatever the status; 0 where unreadable", _E9),
        Column("executed_e9", "quantity", "what the row says was executed; 0 where its status books nothing", _E9),
        Column("price", "price", "price of the row", "quote currency per unit"),
        Column("time_ms", "instant", "timestamp, else created_at", _MS),
        Column("created_at_ms", "instant", "created_at", _MS),
        Column("filled_at_ms", "instant", "time of the execution where the row has one", _MS),
        Column("activity_ms", "instant", "the latest of updated_at, created_at and timestamp: local activity", _MS),
        Column("sub_tag", "text", "attribution tag"),
        Column("source", "text", "who wrote the row"),
        Column("defect", "text", "why the row can't be used (as in LIFECYCLE_ROWS); empty when it can"),
        Column("record", "list", "the compared columns as the view spells them: RowRecord, for compare-and-set"),
    ),
)

ORDER_FACTS = Schema(
    "order_facts",
    (
        Column("account_id", "text", "account that placed the order"),
        Column("order_id", "text", "the exchange's order id"),
        Column("client_order_id", "text", "the client's order id"),
        Column("replaces", "text", "id of the order that this one replaced"),
        Column("replaced_by", "text", "id of the order that replaced this one"),
        Column("trade_id", "text", "trade named by the order itself"),
        Column("sub_tag", "text", "attribution tag"),
        Column("symbol", "text", "as the exchange spells it"),
        Column("symbol_token", "text", "upper case letters and digits of the symbol; what is compared"),
        Column("crypto", "bool", "the symbol has a slash or the order's asset class is crypto"),
        Column("side", "text", "BUY or SELL"),
        Column("type", "text", "order type, lower case"),
        Column("status", "text", "normalised order status"),
        Column("is_over", "bool", "nothing more can execute: filled, canceled, expired, rejected or replaced"),
        Column("ordered_e9", "quantity", "ordered quantity; 0 for an order by notional", _E9),
        Column("executed_e9", "quantity", "executed quantity", _E9),
        Column("price", "price", "average execution price; None where nothing executed", "quote currency per unit"),
        Column("limit_price", "price", "limit price, where there is one", "quote currency per unit"),
        Column("created_at_ms", "instant", "when the order was created", _MS),
        Column("executed_at_ms", "instant", "time of the (last) execution", _MS),
        Column("ended_at_ms", "instant", "canceled_at, expired_at, failed_at or replaced_at", _MS),
        Column("defect", "text", "why its executions are no evidence (as in EXCHANGE_ORDERS); empty when they are"),
    ),
)
"""A superset of EXCHANGE_ORDERS: whatever takes those takes these."""

ORDER_CONFIRMATIONS = Schema(
    "order_confirmations",
    (
        Column("profile_id", "text", "profile of the row"),
        Column("order_id", "text", "key of the row in orders"),
        Column("confirmations", "count", "cycles in a row in which the exchange said that it does not know the order"),
        Column("first_missing_ms", "instant", "the first of them", _MS),
        Column("last_counted_ms", "instant", "the last of them", _MS),
    ),
)

PARITY_STATES = Schema(
    "parity_states",
    (
        Column("profile_id", "text", "profile of the trade"),
        Column("trade_id", "text", "the trade"),
        Column("symbol", "text", "as the ledger spells it"),
        Column("signature", "text", "what is out of line; another signature begins to count again"),
        Column("confirmations", "count", "cycles in a row in which it was out of line"),
        Column("first_seen_ms", "instant", "the first of them", _MS),
        Column("last_counted_ms", "instant", "the last of them", _MS),
        Column("open_e9", "quantity", "signed open quantity of the trade in the ledger, short negative", _E9),
        Column("position_e9", "quantity", "signed position of the account in the symbol", _E9),
        Column("notional_usd", "money", "money out of line; None where no price is known", "USD"),
        Column("quarantined", "bool", "no cycle may close it"),
        Column("reason", "text", "why it is not closed (yet)"),
        Column("root_cause", "text", "what the facts say it is; empty where they say nothing"),
    ),
)
"""Trades that are out of line now. A trade that is in line has no row: its count is reset."""


@dataclass(frozen=True)
class CycleInputs:
    """One consistent snapshot for the stages of a cycle, for any number of accounts.

    ``profiles`` holds every profile of each account that occurs, as in ``ExitBackfillInputs``; a profile whose account's
    reading is incomplete has an ``evidence_defect`` and nothing is concluded from what the exchange did not say.
    """

    profiles: pd.DataFrame
    """PROFILES"""
    ledger_orders: pd.DataFrame
    """LEDGER_ORDERS: the rows of every profile that executed or may yet, backfill and synthetic rows of any status, and
    whatever row names one of the exchange orders, whatever its status and profile"""
    order_facts: pd.DataFrame
    """ORDER_FACTS: what the reading brought and what single look-ups found"""
    positions: pd.DataFrame = field(default_factory=POSITIONS.empty)
    """POSITIONS"""
    consumption: pd.DataFrame = field(default_factory=CONSUMPTION.empty)
    """CONSUMPTION of batches that were not reverted"""
    positions_unknown: frozenset[str] = frozenset()
    """accounts whose positions could not be read at all"""
    capital_usd: Mapping[str, Decimal | None] = field(default_factory=dict)
    """allocated capital by profile; None where it is not known"""
