"""How the sandbox and people use the exchange: control over HTTP, the state file, the command, ccxt."""

import json
import signal
import socket
import stat
import subprocess
import sys
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import ccxt
import pytest
import requests
from alpaca.trading.client import TradingClient
from click.testing import CliRunner

from recon_pipeline.cli.exchange_sim import exchange_sim
from recon_pipeline.sandbox.exchange import ExchangeBook, HistoricFill, HistoricOrder, SimClock, running_exchange
from recon_pipeline_tests.sandbox.exchange.conftest import KEYS, NOON

MARKET = {"symbol": "AAPL", "qty": "2", "side": "buy", "type": "market", "time_in_force": "day"}


@pytest.fixture
def command(sim):
    """POST to the control surface; the JSON of the answer, which must not be a refusal."""

    def send(path, **body):
        answer = requests.post(f"{sim.url}/sim/{path}", json=body, timeout=5)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return send


def test_a_demo_book_can_be_told_over_http(raw, command):
    minute = [(NOON - timedelta(days=9, minutes=-n)).isoformat() for n in range(5)]
    chain = "11111111-1111-4111-8111-111111111111"
    orders = command(
        "history",
        account="PA1",
        orders=[
            {
                "symbol": "AAPL",
                "side": "buy",
                "qty": "10",
                "submitted_at": minute[0],
                "fills": [{"qty": 10, "price": 250.25, "at": minute[0]}],
                "client_order_id": "bytelyst-p1-t1-entry",
                "subtag": "t1",
            },
            {
                "symbol": "AAPL",
                "side": "sell",
                "qty": "10",
                "type": "limit",
                "limit_price": "255",
                "order_id": chain,
                "submitted_at": minute[1],
                "fills": [{"qty": "4", "price": "255", "at": minute[2]}],
                "status": "replaced",
            },
            {
                "symbol": "AAPL",
                "side": "sell",
                "qty": "6",
                "submitted_at": minute[3],
                "fills": [{"qty": "1", "price": "254", "at": minute[3]}],
                "status": "canceled",
                "ended_at": minute[4],
                "replaces": chain,
            },
        ],
    )
    read = {order["id"]: order for order in raw.get("/orders", {"status": "all"})}
    assert [(read[order["id"]]["status"], read[order["id"]]["filled_qty"]) for order in orders] == [
        ("filled", "10"),
        ("replaced", "4"),
        ("canceled", "1"),
    ]
    assert read[chain]["replaced_by"] == orders[2]["id"]
    assert read[orders[2]["id"]]["canceled_at"] == "2026-09-29T16:04:00Z"
    assert (read[orders[0]["id"]]["subtag"], read[orders[0]["id"]]["filled_avg_price"]) == ("t1", "250.25")
    assert raw.get_open_position("AAPL")["qty"] == "5"


def test_prices_fills_trades_actions_and_time_are_commanded(raw, place, command):
    order_id = place(type="limit", limit_price="200", qty="4")["id"]
    assert command("fills", order_id=order_id, qty="1", price="199.5")["status"] == "partially_filled"
    command("prices", AAPL="198")
    assert raw.get_order_by_id(order_id)["filled_avg_price"] == "198.375"
    command("trades", account="PA1", symbol="AAPL", side="sell", qty="1")
    assert command("corporate-actions", account="PA1", symbol="AAPL", qty_change="3")["activity_type"] == "SPLIT"
    assert raw.get_open_position("AAPL")["qty"] == "6"
    command("freeze", symbol="AAPL")
    assert raw.get_order_by_id(place()["id"])["status"] == "new"
    assert command("clock", advance=1.5) == {"now": "2026-10-08T16:00:01.5Z", "held": True}
    assert command("liquidity", symbol="F", slices=2, seconds=5)["slices"] == 2


def test_an_account_opened_by_command_can_sign_in(sim, command):
    told = command("accounts", name="PA9", cash="500", requests_per_minute=5)
    client = TradingClient(told["key_id"], told["secret_key"], url_override=sim.url)
    assert (client.get_account().account_number, client.get_account().cash) == ("PA9", "500")
    listed = requests.get(f"{sim.url}/sim/accounts", timeout=5).json()
    assert [account["account_number"] for account in listed] == ["PA1", "PA9"]
    assert "secret_key" not in listed[1]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("history", {"account": "PA1", "orders": [{"symbol": "AAPL", "side": "up", "submitted_at": "2026-01-01"}]}),
        ("history", {"account": "nobody", "orders": []}),
        ("prices", {"AAPL": "-1"}),
        ("fills", {}),
        ("clock", {"advance": -1}),
    ],
)
def test_a_wrong_command_is_refused_with_a_reason(sim, path, body):
    answer = requests.post(f"{sim.url}/sim/{path}", json=body, timeout=5)
    assert answer.status_code == 422
    assert answer.json()["message"]


def test_the_control_surface_needs_no_keys_and_spends_no_budget(sim, http):
    remaining = int(http("GET", "/v2/clock").headers["X-Ratelimit-Remaining"])
    requests.get(f"{sim.url}/sim/clock", timeout=5)
    assert int(http("GET", "/v2/clock").headers["X-Ratelimit-Remaining"]) == remaining - 1


def test_the_same_book_goes_on_from_its_state_file(tmp_path):
    path = tmp_path / "with space" / "exchange.json"
    book = ExchangeBook(clock=SimClock(NOON), seed=5)
    book.add_account("PA1", key_id="PKTEST", secret_key="test-secret")
    with running_exchange(book=book, state=path) as sim:
        placed = requests.post(f"{sim.url}/v2/orders", json=MARKET, headers=KEYS, timeout=5).json()
        on_disk = json.loads(path.read_text())  # already there when the answer came
        assert on_disk["accounts"][0]["orders"][0][1]["id"] == placed["id"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with running_exchange(state=path) as sim:
        read = requests.get(f"{sim.url}/v2/orders/{placed['id']}", headers=KEYS, timeout=5).json()
        assert (read["status"], read["filled_qty"]) == ("filled", "2")
        assert requests.get(f"{sim.url}/v2/positions", headers=KEYS, timeout=5).json()[0]["qty"] == "2"


def test_a_state_of_another_format_is_refused(tmp_path):
    path = tmp_path / "exchange.json"
    path.write_text('{"format": 99}')
    with pytest.raises(ValueError, match="format 99"), running_exchange(state=path):
        pass


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def start(port: int, state: Path) -> subprocess.Popen[str]:
    code = "from recon_pipeline.cli.exchange_sim import exchange_sim; exchange_sim()"
    arguments = ["--port", str(port), "--state", str(state), "--account", "PA1:PKTEST:test-secret"]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while True:
        try:
            requests.get(f"http://127.0.0.1:{port}/sim/clock", timeout=1)
        except requests.exceptions.ConnectionError:
            assert process.poll() is None, "the exchange ended"
            assert time.monotonic() < deadline, "the exchange did not start"
            time.sleep(0.05)
        else:
            return process


def test_the_command_serves_survives_a_kill_and_stops_when_told(tmp_path):
    port, state = free_port(), tmp_path / "exchange.json"
    url = f"http://127.0.0.1:{port}"
    process = start(port, state)
    placed = requests.post(f"{url}/v2/orders", json=MARKET, headers=KEYS, timeout=5)
    assert placed.status_code == 200, placed.text
    process.kill()
    process.wait(10)
    process = start(port, state)
    assert requests.get(f"{url}/v2/positions", headers=KEYS, timeout=5).json()[0]["qty"] == "2"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert f"simulated Alpaca at {url}" in output
    assert output.endswith("stopped\n")


def test_help_shows_an_example():
    shown = CliRunner().invoke(exchange_sim, ["--help"])
    assert shown.exit_code == 0
    assert "recon exchange-sim --port 8765" in shown.output


def test_ccxt_trades_crypto_against_it(sim):
    exchange = ccxt.alpaca({"apiKey": "PKTEST", "secret": "test-secret"})
    exchange.urls["api"] = dict.fromkeys(exchange.urls["api"], sim.url)
    symbol = "BTC/USD"
    assert symbol in exchange.load_markets()
    placed = exchange.create_order(symbol, "limit", "buy", 0.5, 90_000)
    sim.book.fill(placed["id"], "0.2", price="89999.5")
    assert exchange.fetch_order(placed["id"])["filled"] == 0.2
    assert [order["id"] for order in exchange.fetch_open_orders(symbol)] == [placed["id"]]
    exchange.cancel_order(placed["id"], symbol)
    closed = exchange.fetch_order(placed["id"])
    assert (closed["status"], closed["filled"], closed["average"]) == ("canceled", 0.2, 89999.5)
    (trade,) = exchange.fetch_my_trades(symbol)
    assert (trade["order"], trade["amount"], trade["price"]) == (placed["id"], 0.2, 89999.5)
    assert exchange.fetch_balance()["USD"]["total"] == 100_000 - 0.2 * 89999.5


def test_ten_thousand_orders_are_walked_in_good_time(sim, raw):
    times = [NOON - timedelta(seconds=10_000 - n) for n in range(10_000)]
    sim.book.inject(
        "PA1",
        [HistoricOrder("AAPL", "buy", Decimal(1), at, (HistoricFill(Decimal(1), Decimal(9), at),)) for at in times],
    )
    started, found, cursor = time.monotonic(), 0, {}
    while True:
        page = raw.get("/account/activities/FILL", {"direction": "asc", "page_size": 100, **cursor})
        found += len(page)
        if len(page) < 100:
            break
        cursor = {"page_token": page[-1]["id"]}
    assert found == 10_000
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"fills": (HistoricFill(Decimal(1) / 3, Decimal(9), NOON),)}, "decimal places"),
        ({"fills": (HistoricFill(Decimal(3), Decimal(9), NOON),)}, "sum up to 3"),
        ({"fills": (HistoricFill(Decimal(1), Decimal(0), NOON),)}, "price is above zero"),
        ({"qty": Decimal(0)}, "quantity is above zero"),
        ({"qty": None}, "a quantity or a notional"),
        ({"status": "gone"}, "unknown order status"),
        ({"replaces": "nothing"}, "no order nothing"),
        ({"submitted_at": NOON.replace(tzinfo=None)}, "needs its zone"),
    ],
)
def test_history_that_cannot_be_true_leaves_nothing_behind(sim, account, told, reason):
    order = {"symbol": "AAPL", "side": "buy", "qty": Decimal(2), "submitted_at": NOON, **told}
    with pytest.raises(ValueError, match=reason):
        sim.book.inject("PA1", HistoricOrder(**order))
    assert account.orders() == []


def test_a_fill_by_command_keeps_to_nine_places(sim, place, raw):
    order_id = place(type="limit", limit_price="200", qty="4")["id"]
    with pytest.raises(ValueError, match="at most 9 decimal places"):
        sim.book.fill(order_id, Decimal(4) / 3)
    with pytest.raises(ValueError, match="has 4 left"):
        sim.book.fill(order_id, "5")
    assert raw.get_order_by_id(order_id)["filled_qty"] == "0"
