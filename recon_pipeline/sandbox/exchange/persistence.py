"""The exchange's state as one JSON file, so that a restarted exchange goes on where it stopped.

The file holds the accounts' keys and is written for its owner only. Every change is on disk before it is answered.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from recon_pipeline.sandbox.exchange.accounts import Account, AccountSettings, KeyPair
from recon_pipeline.sandbox.exchange.assets import Asset
from recon_pipeline.sandbox.exchange.book import ExchangeBook
from recon_pipeline.sandbox.exchange.records import Activity, Booking, Order
from recon_pipeline.sandbox.exchange.trading import TradingRules

FORMAT = 1
_Record = TypeVar("_Record")


def _pack(record: Any) -> dict[str, Any]:
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {name: str(value) if isinstance(value, Decimal) else value for name, value in fields.items()}


def _unpack(kind: Callable[..., _Record], packed: dict[str, Any]) -> _Record:
    types: dict[str, str] = {name: str(note) for name, note in inspect.get_annotations(kind).items()}
    values = {
        name: Decimal(value) if value is not None and "Decimal" in types[name] else value
        for name, value in packed.items()
    }
    return kind(**values)


def dump_state(book: ExchangeBook) -> dict[str, Any]:
    """Everything a restart needs, as JSON types."""
    with book.lock:
        return {
            "format": FORMAT,
            "clock": book.clock.dump(),
            "ids": book.ids.dump(),
            "sequence": book.desk.sequence,
            "signed_shorts": book.signed_shorts,
            "rules": _pack(book.desk.rules),
            "market": book.market.dump(),
            "assets": [_pack(asset) for asset in book.assets.all()],
            "accounts": [_dump_account(account) for account in book.accounts()],
        }


def _dump_account(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "number": account.number,
        "key_id": account.keys.key_id,
        "secret_key": account.keys.secret_key,
        "created_ns": account.created_ns,
        "settings": _pack(account.settings),
        "orders": [[at_ns, _pack(order)] for at_ns, order in account.versions()],
        "bookings": [_pack(booking) for booking in account.bookings()],
        "activities": [_pack(activity) for activity in account.all_activities()],
    }


def load_state(state: dict[str, Any]) -> ExchangeBook:
    """A book out of what `dump_state` gave."""
    if state.get("format") != FORMAT:
        raise ValueError(f"the state has format {state.get('format')}, this exchange reads {FORMAT}")
    book = ExchangeBook(rules=_unpack(TradingRules, state["rules"]), signed_shorts=state["signed_shorts"])
    book.clock.load(state["clock"])
    book.ids.load(state["ids"])
    book.desk.sequence = state["sequence"]
    for asset in state["assets"]:
        book.assets.add(_unpack(Asset, asset))
    book.market.load(**state["market"])
    for packed in state["accounts"]:
        book.adopt(_load_account(packed))
    return book


def _load_account(packed: dict[str, Any]) -> Account:
    account = Account(
        packed["id"],
        packed["number"],
        KeyPair(packed["key_id"], packed["secret_key"]),
        _unpack(AccountSettings, packed["settings"]),
        packed["created_ns"],
    )
    for at_ns, order in packed["orders"]:
        account.put(_unpack(Order, order), at_ns)
    for booking in packed["bookings"]:
        account.book(_unpack(Booking, booking))
    for activity in packed["activities"]:
        account.post(_unpack(Activity, activity))
    return account


class StateFile:
    """A book and the file that follows it."""

    def __init__(self, path: Path, book: ExchangeBook) -> None:
        self._path = path
        self._book = book
        self._saved = -1

    def save(self) -> None:
        """Write the state if it changed: a new file in place of the old one, never half of one."""
        with self._book.lock:
            revision = self._book.revision
            if revision == self._saved:
                return
            text = json.dumps(dump_state(self._book), separators=(",", ":"))
            self._saved = revision
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            self._saved = -1
            raise


def read_state(path: Path) -> ExchangeBook | None:
    """The book of a state file; None if there is no such file."""
    if not path.exists():
        return None
    return load_state(json.loads(path.read_text(encoding="utf-8")))
