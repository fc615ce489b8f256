"""How long the engine plans, from frames to plan, and how much memory it takes, in every attribution mode.

Each case is a process of its own that builds frames of N open trades and N exchange orders that close them, calls
``plan_exit_backfill`` and reports the best of its runs and its peak resident memory, interpreter, pandas and the frames
included. Every order is unrecorded and every trade ends covered, which the case checks: a plan that gives up early would
be fast too. Two more modes are not about attribution: ``parity`` (by trade id; every symbol still holds its last trade,
so that the gate has to add up) and ``unproven`` (no order has a key, every trade is a NO_GO). Layouts: all trades on one
symbol, or ten per symbol ("spread"; one per symbol for single_open_trade).

    python -m benchmarks --max 100000 --modes trade_id,qty_unique
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from decimal import Decimal

import numpy as np
import pandas as pd

from recon_pipeline.domain.exit_backfill import plan_exit_backfill
from recon_pipeline.domain.frames import EXCHANGE_ORDERS, LIFECYCLE_ROWS, NO_TIME, POSITIONS, PROFILES, Schema
from recon_pipeline.domain.plan import ExitBackfillInputs
from recon_pipeline.domain.policy import ExitBackfillPolicy

SIZES = (1_000, 10_000, 100_000, 1_000_000)
MODES = ("trade_id", "sub_tag", "client_order_id", "qty_unique", "single_open_trade", "parity", "unproven")
LAYOUTS = ("one symbol", "spread")
START_MS = 1_772_445_600_000
TARGET_SECONDS, TARGET_SIZE, TARGET_RATIO = 0.3, 10_000, 13.0
REPEATS = {1_000: 7, 10_000: 5, 100_000: 4}


def texts(values: list[str]) -> pd.Series:
    return pd.Series(values, dtype=object)


def frame(schema: Schema, size: int, **columns: object) -> pd.DataFrame:
    """A frame of `schema`; text columns that are not given are empty."""
    given = {name: texts([value] * size) if isinstance(value, str) else value for name, value in columns.items()}
    data = {c.name: given.get(c.name, texts([""] * size) if c.type == "text" else None) for c in schema.columns}
    return pd.DataFrame({name: texts(value) if isinstance(value, list) else value for name, value in data.items()})


def build(size: int, mode: str, layout: str) -> tuple[ExitBackfillInputs, ExitBackfillPolicy]:
    """Frames of `size` open trades and as many orders, one for each, that only `mode` can attribute."""
    heuristic = mode in {"qty_unique", "single_open_trade"}
    per_symbol = size if layout == "one symbol" else 1 if mode == "single_open_trade" else 10
    numbers = np.arange(size, dtype=np.int64)
    trades = [f"t{number:07d}" for number in numbers]
    symbols = [f"S{number // per_symbol:07d}" for number in numbers]
    # Quantities of one symbol differ by more than the dust threshold, so that they tell trades apart.
    quantity = 1_000_000_000 + (numbers % per_symbol) * 10_000_000
    # An order that is half a unit larger than its trade fits no trade by its quantity.
    executed = quantity + 500_000_000 if mode == "single_open_trade" else quantity
    exits = [f"bytelyst-p1-{t}-exit" for t in trades] if mode == "client_order_id" else [f"c-{n}" for n in numbers]
    price = np.full(size, Decimal("100.25"), dtype=object)
    rows = frame(
        LIFECYCLE_ROWS,
        size,
        profile_id="p1",
        user_id="u1",
        order_id=[f"entry-{trade}" for trade in trades],
        client_order_id=[f"bytelyst-p1-{trade}-entry" for trade in trades],
        trade_id=trades,
        symbol=symbols,
        symbol_token=symbols,
        side="BUY",
        action="ENTRY",
        status="filled",
        qty_e9=quantity,
        price=price,
        time_ms=START_MS + numbers,
        filled_at_ms=np.full(size, NO_TIME, dtype=np.int64),
    )
    orders = frame(
        EXCHANGE_ORDERS,
        size,
        account_id="a1",
        order_id=[f"order-{number:07d}" for number in numbers],
        client_order_id=exits,
        trade_id=trades if mode in {"trade_id", "parity"} else "",
        sub_tag=[f"bytelyst:p1:{trade}" for trade in trades] if mode == "sub_tag" else "",
        symbol=symbols,
        symbol_token=symbols,
        crypto=np.zeros(size, dtype=bool),
        side="SELL",
        status="filled",
        executed_e9=executed,
        price=price,
        executed_at_ms=START_MS + 3_600_000 + numbers,
    )
    profiles = frame(
        PROFILES,
        1,
        profile_id="p1",
        user_id="u1",
        account_id="a1",
        selected=[True],
        paused=[True],
        audit_available=[True],
        managed_symbols=[None],
        batch_id="RECON-BFILL-benchmark",
    )
    policy = ExitBackfillPolicy(
        enabled=True,
        require_strong_attribution=not heuristic,
        allow_heuristic_match=heuristic,
        dust_rel=Decimal(0),
        lookback_ms=90 * 24 * 3_600_000,
    )
    positions = POSITIONS.empty()
    if mode == "parity":
        last = numbers % per_symbol == per_symbol - 1
        orders = orders[~last]
        held = [symbol for symbol, is_last in zip(symbols, last, strict=True) if is_last]
        known = np.ones(len(held), dtype=bool)
        positions = frame(
            POSITIONS, len(held), account_id="a1", symbol=held, symbol_token=held, qty_e9=quantity[last], known=known
        )
    shuffled = np.random.default_rng(7).permutation(size)
    inputs = ExitBackfillInputs(
        profiles=profiles,
        lifecycle_rows=rows.iloc[shuffled].reset_index(drop=True),
        exchange_orders=orders.iloc[np.random.default_rng(8).permutation(len(orders))].reset_index(drop=True),
        positions=positions,
    )
    return inputs, policy


def case(size: int, mode: str, layout: str) -> dict[str, object]:
    """One case, in this process.

    The tenth that a ratio is against is measured in between, in the same process: a machine whose speed changes from one
    second to the next would otherwise be what the ratio measures.
    """
    inputs, policy = build(size, mode, layout)
    frames_mb = peak_mb()
    wall, cpu, tenth = [], [], []
    smaller = build(size // 10, mode, layout)[0] if size > SIZES[0] else None
    for _ in range(REPEATS.get(size, 2)):
        for _ in range(3 if smaller is not None else 0):
            worked = time.process_time()
            plan_exit_backfill(smaller, policy, now_ms=START_MS + 7_200_000)
            tenth.append(time.process_time() - worked)
        started, worked = time.perf_counter(), time.process_time()
        plan = plan_exit_backfill(inputs, policy, now_ms=START_MS + 7_200_000)
        cpu.append(time.process_time() - worked)
        wall.append(time.perf_counter() - started)
        closed, refused = len(plan.proposals), len(plan.decisions)
        methods = set(plan.proposals["matched_by"]) or {"unproven"}
        open_symbols = len(inputs.positions)
        expected = (0, size) if mode == "unproven" else (size - open_symbols, open_symbols)
        if (closed, refused) != expected or methods != {"trade_id" if mode == "parity" else mode}:
            raise SystemExit(
                f"{mode}, {layout}, {size}: not the expected plan: {closed} rows, {refused} refusals, {methods}"
            )
    ratio = min(cpu) / min(tenth) if tenth else 0.0
    memory = {"peak_mb": peak_mb(), "plan_mb": peak_mb() - frames_mb}
    return {"wall": min(wall), "cpu": min(cpu), "ratio": ratio, **memory}


def peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def run(size: int, mode: str, layout: str) -> dict[str, float]:
    """One case, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", "--case", json.dumps([size, mode, layout])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip() or f"{command} failed")
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def main() -> None:
    """Run all cases and print one line for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("--max", type=int, default=SIZES[-1], help="largest number of open trades (default: 1000000)")
    parser.add_argument("--modes", default=",".join(MODES), help="attribution modes, with commas")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(case(*json.loads(arguments.case))))
        return
    modes = arguments.modes.split(",")
    unknown = sorted(set(modes) - set(MODES))
    if unknown:
        parser.error(f"no such mode: {', '.join(unknown)}; there are {', '.join(MODES)}")
    sizes = [size for size in SIZES if size <= arguments.max]
    if not sizes:
        parser.error(f"--max is below the smallest size, {SIZES[0]}")
    print("plan_exit_backfill, frames to plan: N open trades, N orders.", end=" ")
    print(f"Python {sys.version.split()[0]}, pandas {pd.__version__}. Best of several runs.")
    print("Ratios and targets are of CPU seconds (one thread), so that other work on the machine does not count.")
    heads = ("mode", "layout", "N", "wall s", "CPU s", "ratio", "us/trade", "peak MB", "plan MB")
    print("{:<18}{:<11}{:>10}{:>10}{:>10}{:>7}{:>10}{:>9}{:>9}".format(*heads))
    missed = []
    for mode, layout in ((mode, layout) for mode in modes for layout in LAYOUTS):
        if mode == "single_open_trade" and layout == "one symbol":
            continue
        for size in sizes:
            found = run(size, mode, layout)
            cpu, ratio = found["cpu"], found["ratio"]
            print(
                f"{mode:<18}{layout:<11}{size:>10,}{found['wall']:>10.4f}{cpu:>10.4f}"
                f"{f'{ratio:.1f}' if ratio else '':>7}{cpu / size * 1e6:>10.1f}"
                f"{found['peak_mb']:>9.0f}{found['plan_mb']:>9.0f}",
                flush=True,
            )
            if size == TARGET_SIZE and cpu >= TARGET_SECONDS:
                missed.append(f"{mode}, {layout}: {size:,} trades take {cpu:.2f} s, not under {TARGET_SECONDS} s")
            if ratio > TARGET_RATIO:
                missed.append(f"{mode}, {layout}: {size:,} trades take {ratio:.1f} times the time of a tenth of them")
    if missed:
        print("\n".join(["MISSED", *missed]))
    else:
        print(
            f"All targets met: {TARGET_SIZE:,} under {TARGET_SECONDS} s, ten times the rows at most 13 times the time."
        )
