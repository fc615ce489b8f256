"""What came of a book, in one shape for the engine and for the source's rules, so that the two can be compared.

What belongs here: reading answers of ``recon evaluate``. What does not: expectations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from recon_pipeline_tests.domain import source_rules

Answer = dict[str, Any]
REFUSALS = ("NO_GO", "SKIP_EXISTING", "SKIP_PENDING_ORDER", "SKIP_ACTIVE_POSITION")


@dataclass(frozen=True)
class Outcome:
    """Rows that would be inserted, and what was refused with its reason, both sorted."""

    skipped_reason: str
    rows: list[tuple[str, str, str, Decimal, Decimal]] = field(default_factory=list)
    refusals: list[tuple[str, str, str]] = field(default_factory=list)

    def written(self) -> dict[str, Decimal]:
        """Quantity per trade."""
        totals: dict[str, Decimal] = {}
        for trade_id, _order_id, _side, quantity, _price in self.rows:
            totals[trade_id] = totals.get(trade_id, Decimal(0)) + quantity
        return totals


def engine_outcome(answer: Answer) -> Outcome:
    return Outcome(
        skipped_reason=answer["result"]["skipped_reason"] or "",
        rows=sorted(
            (row["trade_id"], row["order_id"], row["side"], Decimal(row["qty"]), Decimal(row["price"]))
            for row in answer["orders"]
        ),
        refusals=sorted((row["trade_id"], row["decision"], row["reason"]) for row in refusals(answer)),
    )


def source_outcome(book: dict[str, Any]) -> Outcome:
    verdict = source_rules.decide(book)
    held = [
        (str(row["trade_id"]), str(row["decision"]), str(row["reason"])) for row in verdict.no_go + verdict.advisory
    ]
    held += [
        (str(row["trade_id"]), "SKIP_EXISTING", "already_exists")
        for row in verdict.proposed
        if not any(row is inserted for inserted in verdict.inserted)
    ]
    return Outcome(
        skipped_reason=verdict.skipped_reason or "",
        rows=sorted(
            (str(row["trade_id"]), str(row["order_id"]), str(row["side"]), row["qty"], row["price"])  # type: ignore[misc]
            for row in verdict.inserted
        ),
        refusals=sorted(held),
    )


def refusals(answer: Answer) -> list[Answer]:
    """The audit rows of decisions that propose nothing."""
    return [row for row in answer["audit_rows"] if row["decision"] in REFUSALS]


def proposals(answer: Answer) -> list[Answer]:
    """The rows to insert, each with what its audit row says about the order it cites."""
    cited = {
        row["backfill_order_id"]: row for row in answer["audit_rows"] if row["decision"] in ("DRY_RUN", "PENDING_APPLY")
    }
    return [
        {
            **row,
            "exchange_order_id": cited[row["order_id"]]["exchange_order_id"],
            "matched_by": cited[row["order_id"]]["metadata"]["matchedBy"],
        }
        for row in answer["orders"]
    ]


def evidence(answer: Answer) -> dict[str, Answer]:
    """Evidence by exchange order id."""
    return {row["order_id"]: row for row in answer["evidence"]}
