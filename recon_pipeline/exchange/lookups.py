"""One order, asked for by its ids.

What belongs here: which ids are asked for, in which order, and when the answer is that there is no such order. What does not:
how many orders are asked for, and by whom (``reader``, ``bulk``).
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from recon_pipeline.exchange.alpaca import AlpacaClient
from recon_pipeline.exchange.gateway import Absent, ExchangeError, Found, LookupResult, Unknown

LONGEST_CLIENT_ID: Final = 128


def look_up(client: AlpacaClient, order_id: str, client_order_id: str) -> LookupResult:
    """Ask for the order; a failure of the exchange is a value."""
    try:
        return ask(client, order_id, client_order_id)
    except ExchangeError as error:
        return Unknown(str(error), transient=error.transient)


def ask(client: AlpacaClient, order_id: str, client_order_id: str) -> LookupResult:
    """Ask for the order by the ledger's id, which is the exchange's or the client's, then by the client id.

    Absent only where the exchange itself says so for every id. Unknown where there is no id that can be asked for.

    :raises ExchangeError: an answer did not come
    """
    asked: list[str] = []
    if is_exchange_id(order_id):
        found = client.order(order_id)
        if isinstance(found, Found):
            return found
        asked.append(order_id)
    for client_id in dict.fromkeys((client_order_id, order_id)):
        if not client_id:
            continue
        if len(client_id) > LONGEST_CLIENT_ID:
            return Unknown(f"the id {client_id[:20]}... is longer than the exchange allows", transient=False)
        found = client.order_by_client_id(client_id)
        if isinstance(found, Found):
            return found
        asked.append(client_id)
    if not asked:
        return Unknown("the order has no id to ask for", transient=False)
    return Absent(tuple(dict.fromkeys(asked)))


def is_exchange_id(text: str) -> bool:
    """Whether the text has the form of the exchange's own ids; a client id may have it, too."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
