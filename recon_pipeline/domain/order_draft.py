"""What is gathered about the orders of one account while they are gone through: counters, changes, findings.

What does not belong here: any rule.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from recon_pipeline.domain.corrections import Finding, OrderChange, Stage
from recon_pipeline.domain.order_objections import Objection


@dataclass
class OrderDraft:
    """Gathered for the wanted profiles; changes of the others are kept as what their own cycle will write.

    Another profile's row may stand for the order that a wanted profile's backfill row stands for: who plans the one has to
    know what becomes of the other.
    """

    wanted: frozenset[str]
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """by profile and counter"""
    changes: list[OrderChange] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def count(self, profile_id: str, counter: str) -> None:
        """One more of it."""
        self.counts[profile_id, counter] += 1

    def about_row(self, row: Any, objection: Objection, fact: Any | None = None, **detail: object) -> None:
        """Say of a row why it was left alone."""
        self._find(
            row.profile_id,
            objection,
            order_id=row.order_id,
            trade_id=row.trade_id,
            symbol=row.symbol,
            exchange_order_id="" if fact is None else fact.order_id,
            **detail,
        )

    def about_order(self, profile_id: str, trade_id: str, fact: Any, objection: Objection) -> None:
        """Say of an order that no row names why it was left alone."""
        self._find(
            profile_id,
            objection,
            order_id="",
            trade_id=trade_id,
            symbol=fact.symbol,
            exchange_order_id=fact.order_id,
            status=fact.status,
        )

    def _find(
        self,
        profile_id: str,
        objection: Objection,
        *,
        order_id: str,
        trade_id: str,
        symbol: str,
        exchange_order_id: str,
        **detail: object,
    ) -> None:
        if profile_id in self.wanted:
            self.findings.append(
                Finding(
                    profile_id=profile_id,
                    stage=Stage.ORDER_PARITY,
                    reason=objection.reason.value,
                    order_id=order_id,
                    trade_id=trade_id,
                    symbol=symbol,
                    exchange_order_id=exchange_order_id,
                    needs_person=objection.needs_person,
                    detail={**objection.detail, **detail},
                )
            )
