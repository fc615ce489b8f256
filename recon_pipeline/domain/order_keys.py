"""What the explicit keys of an exchange order say of its owner: trade id, sub-tag and client order id, read together.

``attribution`` reads the same keys for exits alone and proves the same trades; here the trade of an entry order is named too,
and the trade that a marked client order id names before the ledger knows it. What does not belong here: ledger rows that name
the order (``ownership``).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from recon_pipeline.domain.attribution import KnownTrades, TradeKey, is_bot_id
from recon_pipeline.domain.tags import client_readings, parse_sub_tag, tag_token


class Kind(StrEnum):
    """What is known of an order's owner."""

    OWNED = "owned"
    """of ``profile_id`` and ``trade_id``"""
    FOREIGN = "foreign"
    """a bot's key names a profile that is none of this account's"""
    UNATTRIBUTED = "unattributed"
    """nothing names its trade; ``profile_id`` is set where the keys (or its row) name the profile alone"""
    AMBIGUOUS = "ambiguous"
    """what names it fits several profiles or trades"""
    CONTRADICTORY = "contradictory"
    """its keys, or a key and a ledger row, name different ones"""


class How(StrEnum):
    """What proved an owned order."""

    TRADE_ID = "trade_id"
    SUB_TAG = "sub_tag"
    CLIENT_ORDER_ID = "client_order_id"
    ROW = "row"
    """a row of the ledger names the order by one of its ids"""
    REPLACED = "replaced"
    """a row of the ledger names an order that this one replaced"""


class Claim(NamedTuple):
    """What the keys of one order say of its owner."""

    kind: Kind
    profile_id: str = ""
    trade_id: str = ""
    role: str = ""
    """``entry`` or ``exit`` where the client order id says so"""
    how: str = ""
    candidates: frozenset[TradeKey] = frozenset()
    """of an ambiguous order: the trades that fit; an empty trade stands for any of the profile"""
    names_trade: bool = False
    """of an unattributed order: a key names a trade that is not known here"""


_FOREIGN: Final = Claim(Kind.FOREIGN)
CONTRADICTORY: Final = Claim(Kind.CONTRADICTORY)


def read_keys(trade_id: str, sub_tag: str, client_order_id: str, known: KnownTrades) -> Claim:
    """What the explicit keys of an order say (empty text where it carries none).

    As ``attribution.attribute`` where that proves a trade; it also names the trade of an entry order, and the trade that a
    client order id with a marker names before the ledger knows it.
    """
    tag = parse_sub_tag(sub_tag) if sub_tag else None
    tag_profile, token = "", ""
    if tag is not None:
        owners = known.with_token(tag.profile_token)
        if not owners:
            return _FOREIGN
        if len(owners) > 1:
            return Claim(Kind.AMBIGUOUS, candidates=frozenset((owner, "") for owner in owners))
        tag_profile, token = owners[0], tag.trade_token
    tagged = known.tagged(tag_profile, token) if token else ()
    owners = known.by_trade.get(trade_id, ()) if trade_id else ()
    readings: set[tuple[str, str, str]] = set()
    by_client = 0
    if is_bot_id(client_order_id):
        named = known.named_by(client_order_id)
        if not named:
            return CONTRADICTORY if tag_profile or owners else _FOREIGN
        if tag_profile:
            named = [(profile, rest) for profile, rest in named if profile == tag_profile]
            if not named:
                return CONTRADICTORY
        every = {(p, key.trade_id, key.role) for p, rest in named for key in client_readings(rest)}
        readings = {reading for reading in every if reading[0] in known.by_trade.get(reading[1], ())}
        if not readings:
            if owners or tagged:
                return CONTRADICTORY
            readings = {reading for reading in every if reading[2]}
            if not readings:
                profiles = {profile for profile, _ in named}
                return _unproven(profiles, names_trade=True)
        by_client = len({(profile, trade) for profile, trade, _ in readings})
    elif trade_id:
        if not owners:
            return CONTRADICTORY if tagged else _unproven({tag_profile}, names_trade=True)
        readings = {(owner, trade_id, "") for owner in owners}
    elif token:
        if not tagged:
            return _unproven({tag_profile}, names_trade=True)
        readings = {(tag_profile, trade, "") for trade in tagged}
    else:
        return _unproven({tag_profile}, names_trade=False)
    fitting = {
        (profile, trade): role
        for profile, trade, role in readings
        if (not trade_id or trade == trade_id)
        and (not tag_profile or profile == tag_profile)
        and (not token or tag_token(trade) == token)
    }
    if not fitting:
        return CONTRADICTORY
    if len(fitting) > 1:
        return Claim(Kind.AMBIGUOUS, candidates=frozenset(fitting))
    (profile, trade), role = next(iter(fitting.items()))
    return Claim(Kind.OWNED, profile, trade, role, _method(len(owners), len(tagged), by_client))


def _unproven(profiles: set[str], *, names_trade: bool) -> Claim:
    if len(profiles) > 1:
        return Claim(Kind.AMBIGUOUS, candidates=frozenset((profile, "") for profile in profiles))
    return Claim(Kind.UNATTRIBUTED, next(iter(profiles)), names_trade=names_trade)


def _method(by_id: int, by_tag: int, by_client: int) -> How:
    """The strongest key that names one trade by itself, given how many each names; else the strongest that names any."""
    named = ((How.TRADE_ID, by_id), (How.SUB_TAG, by_tag), (How.CLIENT_ORDER_ID, by_client))
    return next((how for how, count in named if count == 1), next(how for how, count in named if count))


def named_profiles(trade_id: str, sub_tag: str, client_order_id: str, known: KnownTrades) -> frozenset[str]:
    """Every profile of the account that any of the keys may name."""
    found = set(known.by_trade.get(trade_id, ())) if trade_id else set()
    tag = parse_sub_tag(sub_tag) if sub_tag else None
    if tag is not None:
        found.update(known.with_token(tag.profile_token))
    if is_bot_id(client_order_id):
        found.update(profile for profile, _ in known.named_by(client_order_id))
    return frozenset(found)
