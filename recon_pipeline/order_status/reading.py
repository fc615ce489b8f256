"""What the ledger says around a few orders of one profile: the inputs that their answers are judged with.

What belongs here: reading the rows that matter, whichever profile wrote them, and putting them beside what the exchange said.
What does not: asking the exchange (``asking``), and any decision. The ledger is read after the exchange, as in a cycle: what a
bot wrote meanwhile counts as recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from recon_pipeline.domain.coverage_rows import RECORDED_ELSEWHERE
from recon_pipeline.domain.cycle_frames import CycleInputs
from recon_pipeline.domain.frames import PROFILES, frame_of
from recon_pipeline.domain.order_readings import ledger_orders_frame, order_facts_frame
from recon_pipeline.domain.readings import consumption_frame
from recon_pipeline.ledger.database import Connection
from recon_pipeline.ledger.order_checks import backfill_rows, consumption_of, rows_around_orders
from recon_pipeline.order_status.ports import Record


def profiles_frame(
    siblings: Mapping[str, Record], *, selected: Iterable[str], managed_symbols: Sequence[str] | None
) -> pd.DataFrame:
    """PROFILES of the given profiles, by id. Nothing of the exchange's is incomplete here: only what it said is concluded from.

    :param siblings: rows of the ledger's profiles, by profile
    :param selected: those that decisions are wanted for
    :param managed_symbols: symbols in scope for profiles that name none of their own; None means all
    """
    chosen, ids = frozenset(selected), sorted(siblings)
    rows = [siblings[profile_id] for profile_id in ids]
    scopes = [managed_symbols if row["managed_symbols"] is None else row["managed_symbols"] for row in rows]
    if not ids:
        return PROFILES.empty()
    return frame_of(
        PROFILES,
        {
            "profile_id": ids,
            "user_id": [str(row["user_id"] or "") for row in rows],
            "account_id": [str(row["account_id"]) for row in rows],
            "selected": [profile_id in chosen for profile_id in ids],
            "paused": [False] * len(ids),
            "audit_available": [True] * len(ids),
            "evidence_defect": [""] * len(ids),
            "managed_symbols": [None if scope is None else tuple(scope) for scope in scopes],
            "batch_id": [""] * len(ids),
        },
    )


def profile_inputs(
    connection: Connection,
    profile_id: str,
    siblings: Mapping[str, Record],
    *,
    ids: Iterable[str],
    trade_ids: Iterable[str],
    found: Sequence[Record],
    managed_symbols: Sequence[str] | None,
) -> CycleInputs:
    """Everything that the answers about a profile's orders are judged with: ``found`` as facts, and the rows that matter to them.

    Read are the rows that carry one of the ids (those of the rows asked about, and those of the orders found), every row of the
    trades, and the backfill rows that may stand for an order found.

    :param siblings: rows of every profile of the account, by profile
    :param found: orders as the exchange sent them
    """
    account_id = str(siblings[profile_id]["account_id"])
    facts = order_facts_frame(found, account_id=account_id)
    consumed = consumption_of(connection, account_id, facts["order_id"])
    stand_ins = [str(row["backfill_order_id"]) for row in consumed]
    wanted = {*ids, *facts["order_id"], *facts["client_order_id"], *stand_ins}
    records = rows_around_orders(connection, profile_id, trade_ids=trade_ids, ids=wanted)
    if (facts["executed_e9"] > 0).any():
        known = {(row["profile_id"], row["order_id"]) for row in records}
        more = backfill_rows(connection, sorted(siblings))
        records += [row for row in more if (row["profile_id"], row["order_id"]) not in known]
    own = [row for row in records if row["profile_id"] in siblings]
    strangers = [row for row in records if row["profile_id"] not in siblings]
    return CycleInputs(
        profiles=profiles_frame(siblings, selected=[profile_id], managed_symbols=managed_symbols),
        ledger_orders=ledger_orders_frame(own),
        order_facts=_marked(facts, strangers),
        consumption=consumption_frame(consumed),
    )


def _marked(facts: pd.DataFrame, strangers: Sequence[Record]) -> pd.DataFrame:
    """The facts with a defect where a row of another account's profile names the order: it is recorded, in the wrong place."""
    ids = {row[name] for row in strangers for name in ("order_id", "client_order_id") if row[name]}
    if not ids:
        return facts
    hit = facts["order_id"].isin(ids) | facts["client_order_id"].isin(ids)
    return facts.assign(defect=facts["defect"].where(~hit, RECORDED_ELSEWHERE))
