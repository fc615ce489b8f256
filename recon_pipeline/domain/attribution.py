"""Attribution by the keys an exchange order carries: which trade it belongs to, or why that can't be said.

Keys, strongest first: trade id, sub-tag, client order id. Keys that name different trades veto the order; a foreign
sub-tag beats every own key; a key that names an unknown trade is a hint that keeps the heuristics off the order.
What does not belong here: sides, times and quantities (``allocation``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recon_pipeline.domain.tags import CLIENT_PREFIX, client_readings, parse_sub_tag, profile_splits, tag_token
from recon_pipeline.domain.terms import MatchMethod, NoEvidence

TradeKey = tuple[str, str]
"""(profile id, trade id)"""
_ENTRY_ROLE: Final = "entry"
_TEXT: Final = {term: term.value for term in (*MatchMethod, *NoEvidence)}
_FEW_PROFILES: Final = 8
"""Up to here trying each profile's prefix is faster than trying each dash."""
_KEYS: Final = ("trade_id", "sub_tag", "client_order_id")


class Attribution(NamedTuple):
    """What the keys of one order say.

    ``trade`` is set where they prove a trade, with the strongest ``method``. Otherwise ``reason`` says why not, and
    ``heuristic`` whether the order carries no hint and may be matched by quantity, within ``profile`` if that is set.
    """

    trade: TradeKey | None = None
    method: MatchMethod | None = None
    reason: NoEvidence | None = None
    heuristic: bool = False
    profile: str = ""


class _Reading(NamedTuple):
    """One key: the trades it may name. Empty with ``hint``: it names something that is not known here."""

    method: MatchMethod
    trades: frozenset[TradeKey]


@dataclass(frozen=True)
class KnownTrades:
    """The profiles of one account and the trades that their ledgers know, open or not."""

    profiles: tuple[str, ...]
    by_trade: dict[str, tuple[str, ...]]
    _by_token: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _by_lower: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _by_trade_token: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    _prefixes: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, profiles: Iterable[str], trades: Iterable[TradeKey]) -> KnownTrades:
        """Index the profiles and (profile, trade) pairs of one account."""
        names = tuple(sorted(set(profiles)))
        by_trade: dict[str, tuple[str, ...]] = {}
        alone = {name: (name,) for name in names}
        for profile, trade in trades:
            owners = by_trade.get(trade)
            if owners is None:
                by_trade[trade] = alone.get(profile, (profile,))
            elif profile not in owners:
                by_trade[trade] = (*owners, profile)
        by_token: dict[str, tuple[str, ...]] = {}
        by_lower: dict[str, tuple[str, ...]] = {}
        for name in names:
            by_token[tag_token(name)] = (*by_token.get(tag_token(name), ()), name)
            by_lower[name.lower()] = (*by_lower.get(name.lower(), ()), name)
        prefixes = tuple((f"{CLIENT_PREFIX}{name.lower()}-", name) for name in names)
        return cls(names, by_trade, by_token, by_lower, {}, prefixes)

    def with_token(self, token: str) -> tuple[str, ...]:
        """The profiles that a sub-tag's profile token stands for."""
        return self._by_token.get(token, ())

    def named_by(self, client_order_id: str) -> list[tuple[str, str]]:
        """The profiles that a client order id may name, in any case, each with the rest of the text behind it.

        Ids contain dashes, so more than one profile may fit: all of them are given.
        """
        if len(self.profiles) > _FEW_PROFILES:
            splits = profile_splits(client_order_id)
            return [(name, rest) for lowered, rest in splits for name in self._by_lower.get(lowered, ())]
        text = client_order_id.strip()
        lowered = text.lower()
        return [
            (name, text[len(prefix) :])
            for prefix, name in self._prefixes
            if len(lowered) > len(prefix) and lowered.startswith(prefix)
        ]

    def tagged(self, profile: str, token: str) -> tuple[str, ...]:
        """The profile's trades that a sub-tag's trade token stands for."""
        if not self._by_trade_token:
            index: dict[str, dict[str, tuple[str, ...]]] = {name: {} for name in self.profiles}
            for trade, owners in self.by_trade.items():
                stands_for = tag_token(trade)
                for owner in owners:
                    own = index.setdefault(owner, {})
                    own[stands_for] = (*own[stands_for], trade) if stands_for in own else (trade,)
            self._by_trade_token.update(index)
        return self._by_trade_token.get(profile, {}).get(token, ())


@dataclass(frozen=True)
class Attributions:
    """The attributions of many orders as columns (an object for each would cost more than finding it)."""

    profile: NDArray[Any]
    """profile of the trade, or the one that a heuristic must keep to; empty where there is none"""
    trade: NDArray[Any]
    """trade that the keys prove; empty where they prove none"""
    method: NDArray[Any]
    reason: NDArray[Any]
    heuristic: NDArray[np.bool_]


def attribute_orders(orders: pd.DataFrame, known: KnownTrades, *, require_strong: bool) -> Attributions:
    """The attribution of each order of an EXCHANGE_ORDERS frame of one account, in its order."""
    keys = inherited_keys(orders) if (orders["replaces"] != "").any() else [orders[name].tolist() for name in _KEYS]
    size = len(orders)
    profiles, trades, methods, reasons = ([""] * size for _ in range(4))
    heuristic = np.zeros(size, dtype=bool)
    for index, (trade_id, sub_tag, client_order_id) in enumerate(zip(*keys, strict=True)):
        found = attribute(trade_id, sub_tag, client_order_id, known, require_strong=require_strong)
        if found.trade is not None and found.method is not None:
            profiles[index], trades[index] = found.trade
            methods[index] = _TEXT[found.method]
        elif found.reason is not None:
            reasons[index] = _TEXT[found.reason]
            profiles[index] = found.profile
            heuristic[index] = found.heuristic
    return Attributions(
        profile=np.array(profiles, dtype=object),
        trade=np.array(trades, dtype=object),
        method=np.array(methods, dtype=object),
        reason=np.array(reasons, dtype=object),
        heuristic=heuristic,
    )


def inherited_keys(orders: pd.DataFrame) -> list[list[str]]:
    """The keys of each order (trade ids, sub-tags, client order ids), a replacement's missing ones from what it replaced.

    Replacing an order gives it a new id and, unless the bot names one, a client order id of the exchange's making. The
    exchange's own link says whose order it still is.
    """
    keys = [orders[name].tolist() for name in _KEYS]
    at = {order_id: index for index, order_id in enumerate(orders["order_id"]) if order_id}
    replaces = orders["replaces"].tolist()
    originals = [list(column) for column in keys]
    for index, replaced in enumerate(replaces):
        seen = {index}
        ancestor = at.get(replaced, -1) if replaced else -1
        while ancestor >= 0 and ancestor not in seen:
            seen.add(ancestor)
            for column, original in zip(keys[:2], originals[:2], strict=True):
                column[index] = column[index] or original[ancestor]
            if not is_bot_id(keys[2][index]) and is_bot_id(originals[2][ancestor]):
                keys[2][index] = originals[2][ancestor]
            ancestor = at.get(replaces[ancestor], -1) if replaces[ancestor] else -1
    return keys


def is_bot_id(client_order_id: str) -> bool:
    """Whether a client order id is of the bots' making."""
    return client_order_id[: len(CLIENT_PREFIX)].lower() == CLIENT_PREFIX


_UNATTRIBUTED: Final = Attribution(reason=NoEvidence.UNATTRIBUTED)
_FREE: Final = Attribution(reason=NoEvidence.UNATTRIBUTED, heuristic=True)
_FOREIGN: Final = Attribution(reason=NoEvidence.FOREIGN_SUB_TAG)
_CONTRADICTORY: Final = Attribution(reason=NoEvidence.CONTRADICTORY)
_AMBIGUOUS: Final = Attribution(reason=NoEvidence.AMBIGUOUS)
_UNKNOWN_TRADE: Final = Attribution(reason=NoEvidence.UNKNOWN_TRADE)


def attribute(
    trade_id: str, sub_tag: str, client_order_id: str, known: KnownTrades, *, require_strong: bool
) -> Attribution:
    """The attribution of an order with these keys (empty text where it carries none)."""
    by_client = is_bot_id(client_order_id)
    if not sub_tag and not by_client:
        # The common cases, without building sets: nothing to read, or a trade id that one profile knows.
        if not trade_id:
            return _UNATTRIBUTED if require_strong else _FREE
        owners = known.by_trade.get(trade_id, ())
        if len(owners) == 1:
            return Attribution((owners[0], trade_id), MatchMethod.TRADE_ID)
    readings: list[_Reading] = []
    tag_profile = ""
    malformed = False
    if trade_id:
        owners = known.by_trade.get(trade_id, ())
        readings.append(_Reading(MatchMethod.TRADE_ID, frozenset((owner, trade_id) for owner in owners)))
    if sub_tag:
        tag = parse_sub_tag(sub_tag)
        if tag is None:
            malformed = True
        else:
            owners = known.with_token(tag.profile_token)
            if not owners:
                return _FOREIGN
            if len(owners) > 1:
                return _AMBIGUOUS
            tag_profile = owners[0]
            if tag.trade_token:
                tagged = known.tagged(tag_profile, tag.trade_token)
                if len(tagged) == 1 and not trade_id and not by_client:
                    return Attribution((tag_profile, tagged[0]), MatchMethod.SUB_TAG)
                named = frozenset((tag_profile, trade) for trade in tagged)
                readings.append(_Reading(MatchMethod.SUB_TAG, named))
    is_entry = False
    foreign_client = False
    if by_client:
        claimed = False
        entries: set[TradeKey] = set()
        trades: set[TradeKey] = set()
        for profile, rest in known.named_by(client_order_id):
            claimed = True
            for trade, role in client_readings(rest):
                if profile in known.by_trade.get(trade, ()):
                    trades.add((profile, trade))
                    if role == _ENTRY_ROLE:
                        entries.add((profile, trade))
        foreign_client = not claimed
        is_entry = bool(entries)
        if len(trades) == 1 and not entries and not readings and not tag_profile:
            return Attribution(trades.pop(), MatchMethod.CLIENT_ORDER_ID)
        readings.append(_Reading(MatchMethod.CLIENT_ORDER_ID, frozenset(trades)))
    if not readings:
        if tag_profile:
            return Attribution(reason=NoEvidence.UNATTRIBUTED, heuristic=True, profile=tag_profile)
        if require_strong:
            return Attribution(reason=NoEvidence.MALFORMED_SUB_TAG) if malformed else _UNATTRIBUTED
        return _FREE
    return _combine(readings, tag_profile, is_entry=is_entry, foreign_client=foreign_client)


def _combine(readings: list[_Reading], tag_profile: str, *, is_entry: bool, foreign_client: bool) -> Attribution:
    if len(readings) == 1 and len(readings[0].trades) == 1 and not tag_profile and not is_entry:
        return Attribution(next(iter(readings[0].trades)), readings[0].method)
    if not any(reading.trades for reading in readings):
        if foreign_client:
            return Attribution(
                reason=NoEvidence.FOREIGN_CLIENT_ORDER_ID
                if len(readings) == 1 and not tag_profile
                else NoEvidence.CONTRADICTORY
            )
        return _UNKNOWN_TRADE
    if not all(reading.trades for reading in readings):
        # One key names a trade of this ledger, another one a trade that is not in it: two different trades.
        return _CONTRADICTORY
    common = frozenset.intersection(*(reading.trades for reading in readings))
    if tag_profile:
        common = frozenset(trade for trade in common if trade[0] == tag_profile)
    if not common:
        return _CONTRADICTORY
    if len(common) > 1:
        return _AMBIGUOUS
    if is_entry:
        return Attribution(reason=NoEvidence.ENTRY_ORDER)
    method = next((reading.method for reading in readings if len(reading.trades) == 1), readings[0].method)
    return Attribution(trade=next(iter(common)), method=method)
