"""Every simulated answer validates against Alpaca's official OpenAPI document."""

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from recon_pipeline.sandbox.exchange import HistoricFill, HistoricOrder
from recon_pipeline.sandbox.exchange.records import ALL_STATUSES
from recon_pipeline_tests.sandbox.exchange.conftest import NOON

SPEC = Path(__file__).parents[3] / ".spec" / "alpaca_mcp_server" / "specs" / "trading-api.json"
REMEDY = (
    "Alpaca's OpenAPI document is not here. `make test` installs it; by hand: "
    "pip install --no-deps --require-hashes --target .spec -r requirements-spec.lock"
)
Conforms = Callable[[requests.Response, str, str], Any]


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    assert SPEC.exists(), REMEDY
    return json.loads(SPEC.read_text())


@pytest.fixture(scope="module")
def conforms(spec: dict[str, Any]) -> Conforms:
    """Check an answer against the schema that the document has for this method, path and status."""
    registry = Registry().with_resource("urn:alpaca", Resource.from_contents(spec, DRAFT202012))

    def check(answer: requests.Response, method: str, path: str) -> Any:
        place = spec["paths"][path][method.lower()]["responses"]
        assert str(answer.status_code) in place, f"{method} {path} documents no {answer.status_code}: {answer.text}"
        escaped = path.replace("~", "~0").replace("/", "~1")
        pointer = f"#/paths/{escaped}/{method.lower()}/responses/{answer.status_code}/content/application~1json/schema"
        check_schema(answer.json(), pointer)
        return answer.json()

    def check_schema(content: Any, pointer: str) -> None:
        validator = Draft202012Validator(
            {"$ref": f"urn:alpaca{pointer}"}, registry=registry, format_checker=FormatChecker(["uuid"])
        )
        found = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(content)]
        assert found == []

    check.schema = check_schema  # type: ignore[attr-defined]
    return check


def test_orders_of_every_kind_conform(sim, http, conforms):
    sim.book.set_liquidity("AAPL", 2, 60)
    bodies = [
        {"symbol": "AAPL", "qty": "10", "side": "buy", "type": "market", "time_in_force": "day"},
        {"symbol": "AAPL", "notional": "55.5", "side": "buy", "type": "market", "time_in_force": "day"},
        {"symbol": "MSFT", "qty": "1", "side": "buy", "type": "limit", "limit_price": "9.5", "time_in_force": "gtc"},
        {"symbol": "MSFT", "qty": "1", "side": "sell", "type": "stop", "stop_price": "4", "time_in_force": "gtc"},
        {"symbol": "ETH/USD", "qty": "0.25", "side": "buy", "type": "market", "time_in_force": "ioc"},
        {
            "symbol": "SOL/USD",
            "qty": "1",
            "side": "buy",
            "type": "stop_limit",
            "stop_price": "500",
            "limit_price": "501",
            "time_in_force": "gtc",
        },
    ]
    for body in bodies:
        placed = conforms(http("POST", "/v2/orders", json=body), "POST", "/v2/orders")
        conforms(http("GET", f"/v2/orders/{placed['id']}"), "GET", "/v2/orders/{order_id}")
    resting = http("GET", "/v2/orders?symbols=MSFT&side=buy").json()[0]["id"]
    conforms(http("PATCH", f"/v2/orders/{resting}", json={"qty": "3"}), "PATCH", "/v2/orders/{order_id}")
    found = conforms(http("GET", "/v2/orders?status=all&limit=500"), "GET", "/v2/orders")
    assert len(found) == len(bodies) + 1
    by_client_id = http("GET", f"/v2/orders:by_client_order_id?client_order_id={found[0]['client_order_id']}")
    conforms(by_client_id, "GET", "/v2/orders:by_client_order_id")
    assert len(conforms(http("DELETE", "/v2/orders"), "DELETE", "/v2/orders")) == 5


@pytest.mark.parametrize("status", sorted(ALL_STATUSES))
def test_injected_orders_of_every_status_conform(sim, http, conforms, status):
    fill = HistoricFill(Decimal(1), Decimal("99.123456789"), NOON - timedelta(days=100))
    told = HistoricOrder("AAPL", "sell", Decimal(2), NOON - timedelta(days=101), (fill,), status=status, subtag="s")
    sim.book.inject("PA1", told)
    (order,) = conforms(http("GET", "/v2/orders?status=all"), "GET", "/v2/orders")
    assert order["status"] == status


def test_positions_and_activities_conform(sim, http, conforms):
    sim.book.manual_trade("PA1", "AAPL", "sell", "3")
    sim.book.manual_trade("PA1", "BTC/USD", "buy", "0.4")
    sim.book.manual_trade("PA1", "BTC/USD", "sell", "0.1")
    sim.book.corporate_action("PA1", "MSFT", "5")
    sim.book.advance(timedelta(days=1))
    assert len(conforms(http("GET", "/v2/positions"), "GET", "/v2/positions")) == 3
    conforms(http("GET", "/v2/positions/BTCUSD"), "GET", "/v2/positions/{symbol_or_asset_id}")
    rows = conforms(http("GET", "/v2/account/activities"), "GET", "/v2/account/activities")
    assert sorted(row["activity_type"] for row in rows) == ["CFEE", "CFEE", "FILL", "FILL", "FILL", "SPLIT"]
    for row in rows:
        # By type the document says oneOf two schemas without required keys, which every activity matches both of.
        name = "TradingActivities" if row["activity_type"] == "FILL" else "NonTradeActivities"
        conforms.schema(row, f"#/components/schemas/{name}")
    closed = http("DELETE", "/v2/positions/AAPL?qty=1")
    conforms(closed, "DELETE", "/v2/positions/{symbol_or_asset_id}")
    assert len(conforms(http("DELETE", "/v2/positions"), "DELETE", "/v2/positions")) == 3


@pytest.mark.parametrize(
    ("path", "documented"),
    [
        ("/v2/account", "/v2/account"),
        ("/v2/account/configurations", "/v2/account/configurations"),
        ("/v2/assets", "/v2/assets"),
        ("/v2/assets/AAPL", "/v2/assets/{symbol_or_asset_id}"),
        ("/v2/assets/BTC%2FUSD", "/v2/assets/{symbol_or_asset_id}"),
        ("/v2/clock", "/v2/clock"),
        ("/v2/calendar?start=2026-11-01&end=2026-12-31", "/v2/calendar"),
    ],
)
def test_the_rest_conforms(http, conforms, path, documented):
    assert conforms(http("GET", path), "GET", documented)


def test_every_filter_of_the_document_is_understood(spec, sim, http):
    order_id = sim.book.manual_trade("PA1", "AAPL", "buy", "1").id
    values = {
        "status": "all",
        "limit": "5",
        "after": "2026-01-01",
        "until": "2027-01-01",
        "direction": "asc",
        "nested": "true",
        "symbols": "AAPL",
        "side": "buy",
        "asset_class": "us_equity,crypto",
        "before_order_id": order_id,
        "after_order_id": order_id,
    }
    documented = {parameter["name"] for parameter in spec["paths"]["/v2/orders"]["get"]["parameters"]}
    assert documented == set(values)
    for name, value in values.items():
        answer = http("GET", "/v2/orders", params={"status": "all", name: value})
        expected = 0 if name.endswith("order_id") else 1
        assert len(answer.json()) == expected, name
    opposite = {"status": "open", "after": "2027-01-01", "until": "2026-01-01", "symbols": "F", "side": "sell"}
    for name, value in {**opposite, "asset_class": "crypto"}.items():
        assert http("GET", "/v2/orders", params={"status": "all", name: value}).json() == [], name


def test_every_activity_filter_of_the_document_is_understood(spec, sim, http):
    order = sim.book.manual_trade("PA1", "AAPL", "buy", "1")
    activity_id = http("GET", "/v2/account/activities").json()[0]["id"]
    matching = {
        "activity_types": "FILL,CFEE",
        "category": "trade_activity",
        "order_id": order.id,
        "date": "2026-10-08",
        "until": "2026-10-09T00:00:00Z",
        "after": "2026-10-08",
        "direction": "asc",
        "page_size": "1",
    }
    documented = {p["name"] for p in spec["paths"]["/v2/account/activities"]["get"]["parameters"]}
    assert documented == {*matching, "page_token"}
    for name, value in matching.items():
        assert len(http("GET", "/v2/account/activities", params={name: value}).json()) == 1, name
    others = {"activity_types": "CFEE", "category": "non_trade_activity", "date": "2026-10-09", "after": "2026-10-09"}
    others |= {"until": "2026-10-08", "page_token": activity_id, "order_id": activity_id[-36:]}
    for name, value in others.items():
        assert http("GET", "/v2/account/activities", params={name: value}).json() == [], name
