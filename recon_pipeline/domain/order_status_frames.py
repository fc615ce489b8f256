"""The columns of the frames of the order status sync. The conventions are those of ``frames``."""

from __future__ import annotations

from typing import Final

from recon_pipeline.domain.frames import Column, Schema

_MS: Final = "ms since 1970, UTC"

ORDER_CHECKS = Schema(
    "order_checks",
    (
        Column("profile_id", "text", "profile of the row"),
        Column("order_id", "text", "key of the row in orders"),
        Column("account_id", "text", "account to ask"),
        Column("client_order_id", "text", "client order id, where the ledger keeps it"),
        Column("trade_id", "text", "trade of the row"),
        Column("symbol", "text", "as the ledger spells it"),
        Column("side", "text", "BUY or SELL"),
        Column("status", "text", "the ledger's, normalised"),
        Column("placed_at_ms", "instant", "when the row says that the order was placed; NO_TIME where it doesn't", _MS),
        Column("outcome", "text", "CheckOutcome: what the last check came to"),
        Column("exchange_status", "text", "the exchange's word, where it gave one"),
        Column("detail", "text", "why, for a person"),
        Column("failures", "count", "checks in a row that brought no answer"),
        Column("first_seen_ms", "instant", "when it was found stale first", _MS),
        Column("checked_at_ms", "instant", "when the exchange was asked last; NO_TIME: not yet", _MS),
        Column("next_check_ms", "instant", "when it is asked again", _MS),
    ),
)
"""Orders of the ledger that may still execute and are older than the stale threshold: ``recon.order_checks``."""
