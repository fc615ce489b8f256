"""How fast ``recon serve`` answers while cycles run: requests at a fixed rate from a second process, latency of each endpoint.

Everything is real and on this machine: an embedded Postgres, the simulated exchange over HTTP, one process that runs one cycle
after the other over all profiles without a rest, ``recon serve`` with its own settings, and the process that asks. A thousand
stale orders are added to what the demo books bring, so that page and metrics have their size.

Requests are due at fixed instants and are sent whether or not earlier ones were answered; each latency counts from the instant at
which the request was due, so that a stall of server or client shows in every request that it held up. "Sent late" is the p99 of
how long after that instant the asking process itself came to send: what the machine did to the measurement.

    python -m benchmarks.serve --seconds 20
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import psutil

RATE, SECONDS, BOOKS = 500, 15, 14
TARGET_P99_MS = 100.0
STALE = 1_000
IDLE_SECONDS = 3.0
ENDPOINTS = {
    "health": ["/internal/health"],
    "trading status": ["/internal/trading/status"],
    "metrics": ["/metrics"],
    "page": ["/"],
    "page, filtered": ["/?profile={profile}", "/?status=pending_new", "/?profile={profile}&status=new"],
    "all of them, strangers too": [
        "/internal/health",
        "/internal/trading/status?profile={profile}",
        "/metrics",
        "/",
        "/?profile={profile}",
        "/?profile={random}",
        "/{random}",
    ],
}

ROWS = """
INSERT INTO recon.order_checks (profile_id, order_id, account_id, trade_id, symbol, side, status, placed_at, outcome,
                                exchange_status, first_seen_at, checked_at, next_check_at)
SELECT p.profile_id, 'bench-' || n, p.account_id, 'trade-' || n, 'AAPL', 'BUY',
       (ARRAY['pending_new', 'new', 'accepted'])[1 + n % 3], now() - n * interval '1 minute',
       (ARRAY['not_checked', 'failed', 'missing'])[1 + n % 3], '', now(), now(), now()
FROM generate_series(1, {stale}) AS n
JOIN (SELECT profile_id, account_id, row_number() OVER (ORDER BY profile_id) AS place FROM public.profiles) AS p
  ON p.place = 1 + n % {profiles};
"""


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return ordered[max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1)]


class Client:
    """Keep-alive connections to one server; as many as requests are under way at once."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []
        self.opened = 0

    async def get(self, path: str) -> int:
        """Ask, read the whole answer, return its status."""
        while self.idle and time.monotonic() - self.idle[0][2] > IDLE_SECONDS:
            self.idle.pop(0)[1].close()  # the server closes it soon, perhaps just as we ask
        if self.idle:
            reader, writer, _ = self.idle.pop()
        else:
            self.opened += 1
            reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        self.idle.append((reader, writer, time.monotonic()))
        return int(head[9:12])


async def load(url: str, paths: list[str], rate: int, seconds: float) -> dict[str, object]:
    """Send requests at the rate; return how they went, latencies in milliseconds."""
    client, clock = Client(url), asyncio.get_running_loop().time
    latencies: list[float] = []
    late: list[float] = []
    statuses: Counter[str] = Counter()

    async def one(path: str, due: float) -> None:
        late.append((clock() - due) * 1000)
        try:
            statuses[str(await client.get(path))] += 1
        except (OSError, EOFError, ValueError) as error:
            statuses[type(error).__name__] += 1
        latencies.append((clock() - due) * 1000)

    for path in paths[:20]:
        await client.get(path)
    under_way = set()
    begin, count = clock() + 0.05, int(rate * seconds)
    for number in range(count):
        due = begin + number / rate
        if (rest := due - clock()) > 0:
            await asyncio.sleep(rest)
        task = asyncio.create_task(one(paths[number % len(paths)], due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    took = clock() - begin
    latencies.sort()
    late.sort()
    return {
        "rate": count / took,
        "p50": percentile(latencies, 0.5),
        "p99": percentile(latencies, 0.99),
        "max": latencies[-1],
        "late": percentile(late, 0.99),
        "statuses": dict(statuses),
        "connections": client.opened,
    }


def cycles() -> None:
    """Run cycles over all profiles until told to end; print a line for each."""
    from recon_pipeline.defs.cycle_run import run_shard_cycle
    from recon_pipeline.defs.resources import Outside

    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    outside = Outside()
    settings = outside.settings()
    with outside.ledger(settings) as ledger:
        profiles = [str(row["profile_id"]) for row in ledger.profiles()]
    number = 0
    while not stopped:
        began, worked = time.monotonic(), time.process_time()
        number += 1
        done = list(run_shard_cycle(outside, profiles, run_id=f"bench-{number}"))
        failed = sum(1 for outcome in done if outcome.failures)
        line = {"profiles": len(done), "failed": failed, "seconds": time.monotonic() - began}
        print(json.dumps(line | {"cpu": time.process_time() - worked}), flush=True)


def measure(arguments: argparse.Namespace) -> None:
    """Bring everything up, ask every endpoint, print what came of it."""
    import psycopg

    from recon_pipeline.sandbox.demo_load import load_exchange, load_ledger
    from recon_pipeline.sandbox.demo_trades import demo_book
    from recon_pipeline.sandbox.stage import running_stage

    anchor = datetime.now(UTC).replace(microsecond=0)
    with tempfile.TemporaryDirectory() as directory, running_stage(Path(directory), "b00") as stage:
        for number in range(1, arguments.books):
            book = demo_book(f"b{number:02}", anchor)
            load_exchange(stage.exchange.book, book)
            load_ledger(stage.database_url, book)
            stage.books[f"b{number:02}"] = book
        with psycopg.connect(stage.database_url, autocommit=True) as connection:
            [profiles] = [row for [row] in connection.execute("SELECT count(*) FROM public.profiles").fetchall()]
            connection.execute(ROWS.format(stale=STALE, profiles=profiles).encode())
            names = [
                name for [name] in connection.execute("SELECT profile_id FROM public.profiles ORDER BY 1").fetchall()
            ]
        environment = stage.process_environment(os.environ, rules=True) | {"RECON_EXCHANGE_RATE_PER_MINUTE": "1000000"}
        log = Path(directory) / "cycles.log"
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.serve", "--cycles"], env=environment, stdout=log.open("w")
            )
        ]
        try:
            command = [sys.executable, "-m", "recon_pipeline.cli", "serve", "--port", "0"]
            server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            running.append(server)
            assert server.stdout is not None
            url = server.stdout.readline().split()[4]
            while not log.read_text():
                time.sleep(0.2)
                if any(process.poll() is not None for process in running):
                    raise SystemExit("a process ended early")
            time.sleep(6)
            report(arguments, url, names, psutil.Process(server.pid), log)
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(60)


def report(arguments: argparse.Namespace, url: str, names: list[str], server: psutil.Process, log: Path) -> None:
    """Ask every endpoint in turn and print a line for each."""
    shape = f"{len(names)} profiles and {STALE:,} stale orders"
    machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before"
    print(f"recon serve with {shape}, {arguments.rate} requests/s for {arguments.seconds} s each,")
    print(f"while cycles run one after the other; {machine}. Latencies in ms from the instant due.")
    heads = ("endpoint", "req/s", "p50", "p99", "max", "sent late", "server CPU", "machine", "cycles", "answers")
    print("{:<28}{:>8}{:>8}{:>8}{:>8}{:>11}{:>12}{:>9}{:>8}  {}".format(*heads))
    chosen, missed = random.Random(7), []
    for name, patterns in ENDPOINTS.items():
        paths = [
            pattern.format(profile=chosen.choice(names), random=f"{chosen.getrandbits(60):x}")
            for _ in range(60)
            for pattern in patterns
        ]
        cpu, before, began = sum(server.cpu_times()[:2]), len(log.read_text().splitlines()), time.monotonic()
        psutil.cpu_percent()
        command = [sys.executable, "-m", "benchmarks.serve", "--load", url, "--rate", str(arguments.rate)]
        command += ["--seconds", str(arguments.seconds)]
        done = subprocess.run(command, input=json.dumps(paths), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        found = json.loads(done.stdout)
        busy = psutil.cpu_percent()
        share = (sum(server.cpu_times()[:2]) - cpu) / (time.monotonic() - began)
        ran = len(log.read_text().splitlines()) - before
        answers = " ".join(f"{status}:{count}" for status, count in sorted(found["statuses"].items()))
        latencies = "".join(f"{found[name]:>8.1f}" for name in ("p50", "p99", "max"))
        print(
            f"{name:<28}{found['rate']:>8.0f}{latencies}{found['late']:>11.1f}{share:>12.0%}{busy:>8.0f}%{ran:>8}  {answers}",
            flush=True,
        )
        if found["p99"] >= TARGET_P99_MS or found["rate"] < 0.98 * arguments.rate:
            missed.append(f"{name}: {found['rate']:.0f} requests/s, p99 {found['p99']:.1f} ms")
        if set(found["statuses"]) - {"200", "404"}:
            missed.append(f"{name}: not every request was answered well: {answers}")
    ran = [json.loads(line) for line in log.read_text().splitlines()]
    print(
        f"{len(ran)} cycles in all, {sum(line['seconds'] for line in ran) / len(ran):.1f} s each "
        f"({sum(line['cpu'] for line in ran) / len(ran):.1f} s of CPU); {ran[-1]['failed']} profiles failed in the last."
    )
    print(
        "\n".join(["MISSED", *missed])
        if missed
        else f"All targets met: {arguments.rate} requests/s, p99 under {TARGET_P99_MS:.0f} ms."
    )


def main() -> None:
    """Measure, or be one of the processes of a measurement."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=int, default=RATE, help=f"requests per second (default: {RATE})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for each endpoint (default: {SECONDS})")
    parser.add_argument("--books", type=int, default=BOOKS, help=f"demo books of 15 profiles each (default: {BOOKS})")
    parser.add_argument("--cycles", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cycles:
        cycles()
    elif arguments.load:
        found = asyncio.run(load(arguments.load, json.load(sys.stdin), arguments.rate, arguments.seconds))
        print(json.dumps(found))
    else:
        measure(arguments)


if __name__ == "__main__":
    main()
