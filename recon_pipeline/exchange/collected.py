"""The executions and orders of one account as far as they are known: from the store and from this reading.

What belongs here: what the records say together: which orders are in scope, which belong to one chain of replacements,
whether an order and its executions agree. What does not: requests (``evidence``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from recon_pipeline.domain.quantities import decimal_text_e9
from recon_pipeline.exchange.executions import (
    Execution,
    Raw,
    filled_e9,
    is_basket,
    is_finished,
    last_change,
    last_execution_bound,
    linked_ids,
    order_defect,
)


class Collected:
    """What is known of one account's orders and executions.

    ``suspects`` are orders whose answers contradict each other, to be read again; ``unproven`` says, by order, why it
    can't be relied on.
    """

    def __init__(self, since_ms: int) -> None:
        self._since_ms = since_ms
        self.executions: defaultdict[str, dict[str, Execution]] = defaultdict(dict)
        self.fresh_executions: dict[str, Execution] = {}
        self.orders: dict[str, Raw] = {}
        self.fresh_orders: set[str] = set()
        self.suspects: set[str] = set()
        self.unproven: dict[str, str] = {}

    def recall_orders(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take orders over from the store, where this reading has not brought them."""
        for row in rows:
            self.orders.setdefault(row["order_id"], row["raw"])

    def recall_executions(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take executions over from the store, where this reading has not brought them."""
        for row in rows:
            self.executions[row["order_id"]].setdefault(row["execution_id"], Execution.kept(row))

    def take_order(self, raw: Raw, *, only_if_recent: bool = False) -> None:
        """Note an order as read, unless it lacks something or is older than what is known: executions never shrink."""
        order_id = raw["id"]
        if only_if_recent and order_id not in self.orders and self._is_old(raw):
            return
        known = self.orders.get(order_id)
        defect = order_defect(raw)
        if known is not None and (defect or _went_back(known, raw)):
            self.suspects.add(order_id)
        elif defect:
            self.unproven[order_id] = f"order {order_id} was sent {defect}"
        else:
            self.orders[order_id] = raw
            self.fresh_orders.add(order_id)
            self.unproven.pop(order_id, None)

    def _is_old(self, raw: Raw) -> bool:
        changed = last_change(raw)
        return is_finished(raw) and changed is not None and changed < self._since_ms

    def take_execution(self, execution: Execution) -> bool:
        """Note an execution as read. False where the same id was read with other contents."""
        known = self.executions[execution.order_id].setdefault(execution.execution_id, execution)
        twin = self.fresh_executions.setdefault(execution.execution_id, execution)
        return known.says_the_same(execution) and twin.says_the_same(execution)

    def suspect_unlisted(self, *, from_ms: int) -> None:
        """Suspect orders of which an execution since ``from_ms`` is known and was not listed now.

        A cut-off page, a stale answer, or a busted trade.
        """
        self.suspects |= {
            execution.order_id
            for executions in self.executions.values()
            for execution in executions.values()
            if execution.executed_at_ms >= from_ms and execution.execution_id not in self.fresh_executions
        }

    def stale_orders(self) -> list[str]:
        """Return the orders that were not finished when last read, and have not been read now."""
        return sorted(
            order_id
            for order_id, raw in self.orders.items()
            if order_id not in self.fresh_orders and not is_finished(raw)
        )

    def executed_recently(self) -> set[str]:
        """Return the ids of the orders with an execution in the window, known or not."""
        return {order_id for order_id in self.executions if self._any_recent(order_id)}

    def in_scope(self) -> list[str]:
        """Return the orders that are not finished, or executed in the window as they or their executions say."""

        def says_recent(raw: Raw) -> bool:
            bound = last_execution_bound(raw)
            return filled_e9(raw) != 0 and (bound is None or bound >= self._since_ms)

        return sorted(
            order_id
            for order_id, raw in self.orders.items()
            if not is_finished(raw) or says_recent(raw) or self._any_recent(order_id)
        )

    def _any_recent(self, order_id: str) -> bool:
        return any(e.executed_at_ms >= self._since_ms for e in self.executions.get(order_id, {}).values())

    def linked(self, order_ids: Iterable[str]) -> set[str]:
        """Return the ids reached from the orders by replacements, up to the first unknown one of each chain."""
        reached: set[str] = set()
        ahead = list(order_ids)
        while ahead:
            for link in linked_ids(self.orders.get(ahead.pop(), {})):
                if link not in reached:
                    reached.add(link)
                    ahead.append(link)
        return reached

    def disagreement(self, order_id: str) -> str:
        """Return why the order and its executions do not agree; empty where they do."""
        raw = self.orders[order_id]
        if is_basket(raw):
            return ""
        executions = self.executions.get(order_id, {}).values()
        filled = filled_e9(raw) or 0
        total = sum(e.qty_e9 for e in executions)
        last = max((e.cum_qty_e9 for e in executions), default=0)
        if total == last == filled:
            return ""
        return (
            f"its executions add up to {decimal_text_e9(total)}, the last of them says {decimal_text_e9(last)}, "
            f"the order says {decimal_text_e9(filled)}"
        )

    def joined(self, order_id: str) -> Raw:
        """Return the order, completed by its executions and the orders it replaces where it says nothing itself."""
        raw = dict(self.orders[order_id])
        executions = self.executions.get(order_id, {}).values()
        if not raw.get("filled_at") and executions:
            last = max(executions, key=lambda e: (e.executed_at_ms, e.execution_id))
            raw["filled_at"] = last.raw["transaction_time"]
        chain: list[str] = []
        link = raw.get("replaces")
        while isinstance(link, str) and link in self.orders and link not in chain:
            chain.append(link)
            if not raw.get("subtag"):
                raw["subtag"] = self.orders[link].get("subtag")
            link = self.orders[link].get("replaces")
        if chain:
            raw["replaced_client_order_ids"] = [str(self.orders[id_].get("client_order_id") or "") for id_ in chain]
        return raw


def _went_back(known: Raw, raw: Raw) -> bool:
    was, now = filled_e9(known), filled_e9(raw)
    shrunk = was is not None and now is not None and now < was
    return shrunk or (is_finished(known) and not is_finished(raw))
