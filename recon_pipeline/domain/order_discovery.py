"""Orders of the exchange that no row names: which open row one of them may be known by, and live ones that are recorded.

What does not belong here: orders that are over with executions (``order_coverage``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recon_pipeline.domain.account_orders import AccountOrders, names_an_order
from recon_pipeline.domain.cycle_policy import OrderParityPolicy
from recon_pipeline.domain.order_changes import discovered
from recon_pipeline.domain.order_draft import OrderDraft
from recon_pipeline.domain.order_keys import Kind
from recon_pipeline.domain.order_matching import LIVE, class_of_order, is_recent
from recon_pipeline.domain.order_objections import Objection, OrderReason, recording_objection
from recon_pipeline.domain.terms import ENTRY, opposite

Owners = Mapping[str, Any]
"""Rows of OWNERSHIP of one account by order id"""


def unnamed_orders(account: AccountOrders, owners: Owners) -> list[Any]:
    """The orders that no row of the account names by either id, live or over."""
    named = {int(at) for at in account.matches.order_of if at >= 0}
    return [
        fact
        for at, fact in enumerate(account.fact_list)
        if at not in named and not ((owner := owners.get(fact.order_id)) and owner.row_order_ids)
    ]


def known_by_trade(account: AccountOrders, owners: Owners) -> dict[int, Any]:
    """Open rows whose order is known by the trade alone: position of the row to the order.

    Unique both ways: of the trade's open rows that no id matches, only this one has the order's side, symbol, action and
    (where both say one) ordered quantity, and of the trade's orders that no row names only this one has the row's. A row
    that carries an order's id is that order's and no other's, whatever else there is of its trade; an order that replaced
    another is not known by trade either.
    """
    rows: dict[tuple[str, str], list[tuple[int, Any]]] = {}
    for at in account.unmatched:
        row = account.row(at)
        if row.trade_id:
            rows.setdefault((row.profile_id, row.trade_id), []).append((at, row))
    if not rows:
        return {}
    found: dict[int, list[Any]] = {}
    candidates: dict[str, list[int]] = {}
    for fact in unnamed_orders(account, owners):
        owner = owners.get(fact.order_id)
        if owner is None or owner.kind != Kind.OWNED.value or fact.replaces:
            continue
        for at, row in rows.get((owner.profile_id, owner.trade_id), ()):
            if _fits(row, fact, owner):
                found.setdefault(at, []).append(fact)
                candidates.setdefault(fact.order_id, []).append(at)
    return {
        at: orders[0]
        for at, orders in found.items()
        if len(orders) == 1 and len(candidates[orders[0].order_id]) == 1 and not names_an_order(account.row(at))
    }


def _fits(row: Any, fact: Any, owner: Any) -> bool:
    return (
        bool(row.side)
        and (row.side, row.symbol_token) == (fact.side, fact.symbol_token)
        and (not row.action or not owner.action or row.action == owner.action)
        and (not row.ordered_e9 or not fact.ordered_e9 or row.ordered_e9 == fact.ordered_e9)
    )


def discover(
    account: AccountOrders,
    owners: Owners,
    draft: OrderDraft,
    *,
    taken: frozenset[str],
    policy: OrderParityPolicy,
    now_ms: int,
) -> None:
    """Record the live orders of the account's profiles that no row names; count those that are nobody's here.

    :param taken: orders that an open row is known to be by its trade
    """
    entry_sides, symbols = _trades(account)
    for fact in unnamed_orders(account, owners):
        if fact.order_id in taken or class_of_order(fact) not in LIVE:
            continue
        owner = owners.get(fact.order_id)
        if owner is None or not owner.profile_id:
            _nobodys(account, fact, owner, draft)
            continue
        profile, trade = owner.profile_id, (owner.profile_id, owner.trade_id)
        if is_recent(fact.created_at_ms, now_ms, policy.quiet_ms):
            draft.count(profile, "postponed_quiet")
            continue
        if not account.manages(profile, fact.symbol_token):
            draft.count(profile, "out_of_scope")
            continue
        objection = recording_objection(fact, owner)
        if objection is None and owner.trade_id:
            objection = _trade_objection(fact, owner.action, entry_sides.get(trade), symbols.get(trade))
        if objection is not None:
            draft.count(profile, "missing_in_db")
            draft.about_order(profile, owner.trade_id, fact, objection)
            continue
        draft.count(profile, "discovered")
        user_id = account.profiles[profile].user_id
        draft.changes.append(discovered(fact, owner=trade, user_id=user_id, action=owner.action, how=owner.how))


def _nobodys(account: AccountOrders, fact: Any, owner: Any | None, draft: OrderDraft) -> None:
    """An order that no single profile can be named for: counted, and said where it may be one of ours."""
    reasons = {
        Kind.AMBIGUOUS.value: OrderReason.AMBIGUOUS,
        Kind.CONTRADICTORY.value: OrderReason.CONTRADICTORY,
    }
    reason = None if owner is None else reasons.get(owner.kind)
    for profile in account.wanted:
        if reason is None:
            draft.count(profile, "foreign_orders")
        else:
            draft.count(profile, "missing_in_db")
            draft.about_order(profile, "", fact, Objection(reason))


def _trades(account: AccountOrders) -> tuple[dict[tuple[str, str], set[str]], dict[tuple[str, str], set[str]]]:
    """The sides on which the ledger's trades are entered as far as rows say it, and their symbols' tokens."""
    sides: dict[tuple[str, str], set[str]] = {}
    symbols: dict[tuple[str, str], set[str]] = {}
    names = ("profile_id", "trade_id", "side", "action", "symbol_token")
    distinct = account.rows[list(names)].drop_duplicates()
    for profile, trade, side, action, token in zip(*(distinct[name] for name in names), strict=True):
        if trade and token:
            symbols.setdefault((profile, trade), set()).add(token)
        if trade and side and action:
            sides.setdefault((profile, trade), set()).add(side if action == ENTRY else opposite(side))
    return sides, symbols


def _trade_objection(fact: Any, action: str, entered: set[str] | None, symbols: set[str] | None) -> Objection | None:
    """A new row must not make a trade undecidable: its symbol and sides are those that the trade's rows have."""
    if symbols and fact.symbol_token not in symbols:
        return Objection(OrderReason.CONFLICTING_SYMBOL, detail={"trade": sorted(symbols), "order": fact.symbol})
    if entered and (fact.side if action == ENTRY else opposite(fact.side)) not in entered:
        detail: dict[str, object] = {"entered": sorted(entered), "action": action, "order": fact.side}
        return Objection(OrderReason.CONFLICTING_SIDE, detail=detail)
    return None
