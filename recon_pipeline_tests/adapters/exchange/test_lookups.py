"""Single orders looked up: found, absent because the exchange says so, or unknown; nothing else."""

from __future__ import annotations

from decimal import Decimal

import pytest

from recon_pipeline.exchange.gateway import Absent, Found, Unknown
from recon_pipeline.sandbox.exchange import Fault, FaultKind
from recon_pipeline_tests.adapters.exchange.world import ago, filled, order_id, world


def test_an_order_is_found_by_its_id_by_its_client_id_and_by_a_client_id_kept_as_its_id() -> None:
    with world() as w:
        w.inject(filled(1, "AAPL", "sell", ("3", "100", ago(hours=1)), client_order_id="bytelyst-p1-t1-exit"))
        asked = [
            (order_id(1), ""),
            (order_id(9), "bytelyst-p1-t1-exit"),
            ("", "bytelyst-p1-t1-exit"),
            ("bytelyst-p1-t1-exit", ""),
        ]
        for result in w.reader.look_up_all("A1", asked):
            assert isinstance(result, Found)
            assert (result.raw["id"], result.raw["filled_qty"]) == (order_id(1), "3")


def test_an_order_is_absent_only_where_the_exchange_denies_each_of_its_ids() -> None:
    with world() as w:
        assert w.reader.look_up("A1", order_id=order_id(9), client_order_id="mine") == Absent((order_id(9), "mine"))
        assert [path for path in w.requests if "by_client" not in path] == [f"/v2/orders/{order_id(9)}"]
        w.sim.faults.add(Fault(FaultKind.ERROR, path="/v2/orders:by_client_order_id", status=503))
        result = w.reader.look_up("A1", order_id=order_id(9), client_order_id="mine")
        assert isinstance(result, Unknown)
        assert result.transient
        assert "HTTP 503" in result.error


@pytest.mark.parametrize(
    "kind",
    [
        FaultKind.HTML,
        FaultKind.NULL_BODY,
        FaultKind.EMPTY_BODY,
        FaultKind.DROP,
        FaultKind.DROP_MID_BODY,
        FaultKind.TIMEOUT,
        FaultKind.RATE_LIMITED,
        FaultKind.ERROR,
    ],
)
def test_any_other_answer_is_unknown(kind: FaultKind) -> None:
    with world() as w:
        w.inject(filled(1, "AAPL", "sell", ("3", "100", ago(hours=1)), qty=Decimal(3)))
        w.sim.faults.add(Fault(kind, path="/v2/orders*", status=404 if kind is FaultKind.HTML else 500, seconds=1))
        result = w.reader.look_up("A1", order_id=order_id(1))
        assert isinstance(result, Unknown)
        assert len(result.error) > 20
        assert "secret-of" not in result.error


def test_an_account_without_keys_or_an_order_without_ids_is_unknown() -> None:
    with world() as w:
        nobody = w.reader.look_up("A9", order_id=order_id(1))
        assert isinstance(nobody, Unknown)
        assert (nobody.transient, "there are no keys for account 'A9'" in nobody.error) == (False, True)
        assert w.reader.look_up("A1", order_id=" ") == Unknown("the order has no id to ask for", transient=False)
        assert isinstance(w.reader.look_up("A1", order_id="x" * 200), Unknown)
        assert w.requests == []
