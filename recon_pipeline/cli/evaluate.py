"""``recon evaluate``: decisions on a book, offline. No database, no network, no clock.

One JSON object per line in, one per line out: how an exported incident is studied, and how the engine is compared with
others. What does not belong here: any rule; this module only translates a book into frames and a plan into JSON.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import IO, Any, Final

import click
import pandas as pd

from recon_pipeline.domain.audit import AuditRecord, decision_audit_records, order_records, proposal_audit_records
from recon_pipeline.domain.exit_backfill import plan_exit_backfill
from recon_pipeline.domain.frames import NO_TIME, PROFILES, frame_of, rows_of
from recon_pipeline.domain.instants import iso_ms, parse_instant
from recon_pipeline.domain.plan import ExitBackfillInputs, ProfilePlan
from recon_pipeline.domain.quantities import decimal_text, decimal_text_e9
from recon_pipeline.domain.readings import (
    exchange_orders_frame,
    lifecycle_rows_frame,
    positions_frame,
    text_of,
)
from recon_pipeline.domain.terms import Decision
from recon_pipeline.settings import read_exit_backfill_policy

ACCOUNT: Final = "account"
_BATCHES: Final = uuid.UUID("6f1c1f0e-5a0b-5d5e-9c55-4e6a3c1b7f10")
"""Namespace of the batch ids of books that name none: the same book gets the same id."""


class BookError(ValueError):
    """A book can't be read; the message names the field and what it must be."""


def evaluate_book(book: object, *, timing: bool = False) -> dict[str, Any]:
    """The decisions on one book, as JSON values; a malformed book gives ``{"id", "error"}``."""
    identity = book.get("id") if isinstance(book, Mapping) else None
    if not isinstance(identity, str | int | float | Decimal | None):
        return {"id": None, "error": f"id is a text or a number, not {_kind(identity)}"}
    try:
        return _evaluate(book, timing=timing)
    except ValueError as error:
        return {"id": _jsonable(identity), "error": str(error)}


def _evaluate(book: object, *, timing: bool) -> dict[str, Any]:
    if not isinstance(book, Mapping):
        raise BookError(f"a book is a JSON object, not {_kind(book)}")
    config = _mapping(book, "config")
    policy = read_exit_backfill_policy(config)
    profile_id = _text(book, "profile_id", "p1")
    user_id = _text(book, "user_id", "u1")
    managed = _list(book, "managed_symbols", absent=None)
    if managed is not None and not all(isinstance(symbol, str) for symbol in managed):
        raise BookError("managed_symbols is a list of texts")
    now_ms = None
    if book.get("now_ms") is not None:
        now_ms = parse_instant(book["now_ms"])
        if now_ms is None:
            raise BookError(f"now_ms is {book['now_ms']!r}; give milliseconds since 1970")
    orders, evidence_defect = _exchange_orders(book)
    rows = lifecycle_rows_frame(_list(book, "lifecycle_rows"), profile_id=profile_id, user_id="")
    pending = lifecycle_rows_frame(_list(book, "open_orders"), profile_id=profile_id, user_id="")
    positions, positions_unknown = _positions(book)
    others = sorted({*rows["profile_id"], *pending["profile_id"]} - {profile_id})
    batch_id = _text(book, "batch_id", "")
    frames = ExitBackfillInputs(
        profiles=frame_of(
            PROFILES,
            {
                "profile_id": [profile_id, *others],
                "user_id": [user_id, *[""] * len(others)],
                "account_id": [ACCOUNT] * (1 + len(others)),
                "selected": [True, *[False] * len(others)],
                "paused": [_flag(book, "paused", default=True)] * (1 + len(others)),
                "audit_available": [_flag(book, "audit_available", default=True)] * (1 + len(others)),
                "evidence_defect": [evidence_defect] * (1 + len(others)),
                "managed_symbols": [None if managed is None else tuple(managed), *[None] * len(others)],
                "batch_id": [batch_id] * (1 + len(others)),
            },
        ),
        lifecycle_rows=rows,
        exchange_orders=exchange_orders_frame(orders, account_id=ACCOUNT),
        positions=positions,
        pending_rows=pending,
        existing_order_ids=frozenset(
            text for order_id in _list(book, "existing_order_ids") if (text := text_of(order_id))
        ),
        positions_unknown=frozenset([ACCOUNT] if positions_unknown else []),
    )
    started = time.perf_counter_ns()
    plan = plan_exit_backfill(frames, policy, now_ms=now_ms)
    elapsed_ms = (time.perf_counter_ns() - started) / 1e6
    own = plan.for_profile(profile_id)
    if not batch_id:
        own = replace(own, batch_id=f"RECON-BFILL-{uuid.uuid5(_BATCHES, f'{profile_id}:{own.digest}')}")
    answer = _answer(book.get("id"), own, apply=_flag(book, "apply", default=False))
    if timing:
        answer["engine_ms"] = round(elapsed_ms, 3)
    return answer


def _answer(identity: object, plan: ProfilePlan, *, apply: bool) -> dict[str, Any]:
    dry_run = not apply
    audit: list[AuditRecord] = []
    if plan.attempted:
        audit += proposal_audit_records(plan, Decision.DRY_RUN if dry_run else Decision.PENDING_APPLY)
        audit += decision_audit_records(plan, dry_run=dry_run)
        if apply:
            audit += proposal_audit_records(plan, Decision.APPLIED)
    orders = [{**record, "filled_at": _iso(record["filled_at"])} for record in order_records(plan)]
    return {
        "id": _jsonable(identity),
        "result": {
            "attempted": plan.attempted,
            "skipped_reason": plan.skipped_reason or None,
            "dry_run": dry_run,
            "batch_id": plan.batch_id if plan.attempted else None,
            "open_trade_candidates": plan.open_trade_candidates,
            "proposed_rows": len(plan.proposals),
            "inserted_rows": len(plan.proposals) if apply else 0,
            "no_go_trades": plan.no_go_trades,
            "no_go_reason_counts": plan.no_go_reason_counts,
            "no_go_samples": plan.no_go_samples,
            "over_exits": _trades(plan.over_exits),
            "unmanaged_trades": _trades(plan.unmanaged),
        },
        "audit_rows": [
            {**{name: _jsonable(value) for name, value in record.items()}, "filled_at": _iso(record["filled_at"])}
            for record in audit
        ],
        "orders": [{name: _jsonable(value) for name, value in record.items()} for record in orders],
        "evidence": [
            {
                "order_id": row.order_id,
                "client_order_id": row.client_order_id,
                "symbol": row.symbol,
                "side": row.side,
                "trade_id": row.trade_id or None,
                "matched_by": row.matched_by or None,
                "executed": decimal_text_e9(row.executed_e9),
                "represented": decimal_text_e9(row.represented_e9),
                "allocated": decimal_text_e9(row.allocated_e9),
                "excess": decimal_text_e9(row.excess_e9),
                "executed_at": None if row.executed_at_ms == NO_TIME else iso_ms(row.executed_at_ms),
                "reason": row.reason or None,
            }
            for row in rows_of(plan.evidence)
        ],
        "digest": plan.digest,
    }


def _trades(slices: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {"symbol": row.symbol, "trade_id": row.trade_id, "open_qty": decimal_text_e9(row.open_e9)}
        for row in rows_of(slices)
    ]


def _iso(moment: Any) -> str | None:
    """The spelling of ``filled_at`` that the backfill id hashes."""
    return None if moment is None else iso_ms(parse_instant(moment) or 0)


def _jsonable(value: object) -> object:
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    return value


def _exchange_orders(book: Mapping[str, object]) -> tuple[list[Any], str]:
    """All orders of all symbols, and why the reading is incomplete where a symbol's reading failed (null)."""
    if "closed_orders" in book and book["closed_orders"] is None:
        return [], "the reading of the exchange's orders failed"
    orders: list[Any] = []
    defect = ""
    for symbol, listed in _mapping(book, "closed_orders").items():
        if listed is None:
            defect = f"the reading of the exchange's orders of {symbol} failed"
        elif isinstance(listed, list):
            orders.extend(listed)
        else:
            raise BookError(f"closed_orders.{symbol} is a list of orders or null, not {_kind(listed)}")
    return orders, defect


def _positions(book: Mapping[str, object]) -> tuple[pd.DataFrame, bool]:
    if "positions" in book and book["positions"] is None:
        return positions_frame({}, account_id=ACCOUNT), True
    return positions_frame(_mapping(book, "positions"), account_id=ACCOUNT), False


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _mapping(book: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = book.get(name, {})
    if not isinstance(value, Mapping):
        raise BookError(f"{name} is a JSON object, not {_kind(value)}")
    return value


def _list(book: Mapping[str, object], name: str, *, absent: Sequence[Any] | None = ()) -> Any:
    value = book.get(name)
    if value is None and (name not in book or absent is None):
        return absent
    if not isinstance(value, list):
        raise BookError(f"{name} is a list, not {_kind(value)}")
    return value


def _text(book: Mapping[str, object], name: str, default: str) -> str:
    value = book.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or not value.strip():
        raise BookError(f"{name} is a text, not {_kind(value)}")
    return value.strip()


def _flag(book: Mapping[str, object], name: str, *, default: bool) -> bool:
    value = book.get(name, default)
    if not isinstance(value, bool):
        raise BookError(f"{name} is true or false, not {_kind(value)}")
    return value


def evaluate_lines(lines: Iterable[bytes], out: IO[str], *, timing: bool) -> bool:
    """Answer each line that is not blank; whether all of them were well formed."""
    well_formed = True
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            book = json.loads(line.decode(), parse_float=Decimal)
        except (ValueError, RecursionError) as error:
            answer: dict[str, Any] = {"id": None, "error": f"line {number} is not JSON: {error}"}
        else:
            answer = evaluate_book(book, timing=timing)
        well_formed &= "error" not in answer
        out.write(json.dumps(answer) + "\n")
        out.flush()
    return well_formed


@click.command()
@click.argument("books", type=click.File("rb"), default="-")
@click.option("--timing", is_flag=True, help="Add engine_ms: milliseconds from frames in to plan out.")
def evaluate(books: IO[bytes], timing: bool) -> None:
    """Decide on BOOKS (JSON lines; stdin by default) offline and print one JSON line per book.

    Exits with 1 if any line was malformed; the other lines are still answered.

    \b
    Example:
      echo '{"id": "b1", "config": {"ENABLE_RECON_EXIT_BACKFILL": true}}' | recon evaluate
    """  # noqa: D301
    well_formed = evaluate_lines(books, sys.stdout, timing=timing)
    if not well_formed:
        raise SystemExit(1)
