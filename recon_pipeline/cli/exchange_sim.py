"""`recon exchange-sim`: the simulated exchange in the foreground, for bots and tools outside this repository."""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime
from pathlib import Path

import click


@click.command("exchange-sim")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 picks a free one."
)
@click.option(
    "--state",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that keeps orders, positions and keys across restarts.",
)
@click.option("--seed", type=int, help="Make ids repeatable.")
@click.option(
    "--hold-clock", type=click.DateTime(), help="Start at this UTC time and stand still until told to advance."
)
@click.option("--market-hours", is_flag=True, help="Let equities trade in New York's core session only.")
@click.option(
    "--account",
    "accounts",
    multiple=True,
    metavar="NAME[:KEY_ID:SECRET]",
    help="Open an account (repeatable). One named SIM is opened if there is none.",
)
def exchange_sim(
    host: str,
    port: int,
    state: Path | None,
    seed: int | None,
    hold_clock: datetime | None,
    market_hours: bool,
    accounts: tuple[str, ...],
) -> None:
    r"""Serve a simulated Alpaca paper Trading API until interrupted.

    Clients use it like the paper API: TradingClient(key, secret, url_override=URL), and URL/stream for trade updates.
    Prices, fills, history, faults and the clock are commanded under URL/sim, from this machine only.

    \b
    Example:
      recon exchange-sim --port 8765 --state .recon/exchange.json --account DEMO:PKDEMO:demo-secret
      curl -X POST localhost:8765/sim/prices -d '{"AAPL": "250.10"}'
      curl -X POST localhost:8765/sim/faults -d '{"kind": "error", "status": 503, "path": "/v2/orders*", "count": 2}'
    """
    from recon_pipeline.sandbox.exchange.book import ExchangeBook
    from recon_pipeline.sandbox.exchange.clock import SimClock
    from recon_pipeline.sandbox.exchange.server import running_exchange
    from recon_pipeline.sandbox.exchange.trading import TradingRules

    clock = SimClock(None if hold_clock is None else hold_clock.replace(tzinfo=UTC))
    book = ExchangeBook(clock=clock, seed=seed, rules=TradingRules(market_hours=market_hours))
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())

    def open_accounts(book: ExchangeBook) -> None:
        """Open them before the first request is answered: whoever asks early must not be told that his keys are unknown."""
        known = {account.number for account in book.accounts()}
        for wanted in accounts or (() if known else ("SIM",)):
            name, _, keys = wanted.partition(":")
            if name not in known:
                key_id, _, secret = keys.partition(":")
                book.add_account(name, key_id=key_id or None, secret_key=secret or None)

    with running_exchange(book=book, host=host, port=port, state=state, prepare=open_accounts) as sim:
        click.echo(f"simulated Alpaca at {sim.url}   trade updates at {sim.stream_url}")
        for account in sim.book.accounts():
            click.echo(f"account {account.number}   key {account.keys.key_id}   secret {account.keys.secret_key}")
        click.echo("commands (prices, fills, history, faults, clock): POST to /sim/..., from this machine only")
        stopped.wait()
    click.echo("stopped")
