"""Attribution keys that an exchange order carries: client order id and sub-tag. Parsing only; no trade is looked up here.

Conventions of the bots: client order id ``bytelyst-<profile>-<trade>[-entry|-exit[-n]]``; sub-tag
``bytelyst:<profile token>[:<trade token>]``, a token being the lower-cased id with everything outside a-z0-9 dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

CLIENT_PREFIX: Final = "bytelyst-"
TAG_PREFIX: Final = "bytelyst"
_NOT_TOKEN: Final = re.compile(r"[^a-z0-9]+")
_ROLES: Final = frozenset({"entry", "exit"})
_TAG_PARTS: Final = (2, 3)


@lru_cache(maxsize=262_144)
def tag_token(identifier: str) -> str:
    """The token that stands for a profile or trade id in a sub-tag."""
    lowered = identifier.lower()
    return lowered if lowered.isascii() and lowered.isalnum() else _NOT_TOKEN.sub("", lowered)


class SubTag(NamedTuple):
    """A well-formed sub-tag: the profile token and, where given, the trade token."""

    profile_token: str
    trade_token: str


def parse_sub_tag(raw: str) -> SubTag | None:
    """The sub-tag's tokens, or None where the text is not a sub-tag of ours (malformed)."""
    parts = raw.strip().lower().split(":")
    if parts[0] != TAG_PREFIX or len(parts) not in _TAG_PARTS:
        return None
    if not all(part.isascii() and part.isalnum() for part in parts[1:]):
        return None
    return SubTag(parts[1], parts[2] if len(parts) == _TAG_PARTS[1] else "")


class ClientKey(NamedTuple):
    """One way to read a client order id's text behind the profile: the trade it names, and as what."""

    trade_id: str
    role: str


def client_readings(suffix: str) -> tuple[ClientKey, ...]:
    """The readings of ``<trade>[-entry|-exit[-n]]``: with the marker taken off, and as a trade id that ends like one."""
    suffix = suffix.strip()
    if not suffix:
        return ()
    plain = ClientKey(suffix, "")
    trade, _, role = suffix.rpartition("-")
    if role.isascii() and role.isdigit():
        trade, _, role = trade.rpartition("-")
    role, trade = role.lower(), trade.strip()
    return (ClientKey(trade, role), plain) if trade and role in _ROLES else (plain,)


def profile_splits(client_order_id: str) -> Iterator[tuple[str, str]]:
    """Every way to read ``bytelyst-<profile>-<rest>``: (lower-cased profile, rest), shortest profile first.

    Ids contain dashes, so the text alone does not say where the profile ends; the profiles of the account do.
    """
    text = client_order_id.strip()
    if not text.lower().startswith(CLIENT_PREFIX):
        return
    rest = text[len(CLIENT_PREFIX) :]
    at = rest.find("-")
    while at != -1:
        if at > 0 and at + 1 < len(rest):
            yield rest[:at].lower(), rest[at + 1 :]
        at = rest.find("-", at + 1)
