"""Cycles that are disturbed: two schedulers at once, one of which may lose its leases half-way, and kill -9 at any moment.

Whatever moment is struck: the same cycle is run again, as a scheduler does, and the result must be that of an undisturbed life.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from recon_pipeline.cycle.outcome import ProfileCycle
from recon_pipeline.cycle.running import LEASE_HELD
from recon_pipeline.sandbox.exchange import FaultKind
from recon_pipeline_tests.soak.cycles import Log, Place, Scheduler, arm, names_of
from recon_pipeline_tests.soak.driver import World
from recon_pipeline_tests.soak.mishaps import Trouble
from recon_pipeline_tests.soak.verdict import Name

CHILD_SECONDS = 60.0
WRITING = ("recon apply", "recon cycle")


def expire_leases(world: World) -> None:
    """The time passes that a dead run's lease lasts."""
    world.ledger.rows(
        "UPDATE recon.leases SET expires_at = clock_timestamp() - interval '1 second' RETURNING profile_id"
    )


class TwoAtOnce:
    """Two schedulers run every cycle at the same time. In every other one the first loses its leases to the second."""

    def __init__(self, world: World, after: Callable[[int], None]) -> None:
        self.log = Log()
        self.took_over = 0
        """cycles in which the second scheduler took the leases of the first"""
        self.kept_out = 0
        """cycles in which one of them found leases taken"""
        self._rng = random.Random(f"{world.plan.seed}:two")
        self._schedulers = [Scheduler(Place.of(world)), Scheduler(Place.of(world))]
        self._after = after

    def run(self, world: World, number: int, trouble: list[Trouble]) -> None:
        arm(world, trouble)
        outcomes: dict[int, list[ProfileCycle]] = {}
        failed: list[BaseException] = []

        def work(who: int) -> None:
            try:
                outcomes[who] = self._schedulers[who].run(f"cycle-{number}-{who}", world.now_ms)
            except BaseException as error:  # noqa: BLE001 - handed to the caller, below
                failed.append(error)

        threads = [threading.Thread(target=work, args=(who,)) for who in (0, 1)]
        threads[0].start()
        if number % 2:
            self._wait_for_leases(world, f"cycle-{number}-0", threads[0])
            time.sleep(self._rng.uniform(0, 0.5))
            expire_leases(world)
        threads[1].start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
        worked = [[cycle for cycle in outcomes[who] if cycle.report.processed] for who in (0, 1)]
        self.took_over += bool(number % 2 and worked[1])
        self.kept_out += any(cycle.report.skipped_reason == LEASE_HELD for told in outcomes.values() for cycle in told)
        self.log.took([cycle for told in worked for cycle in told], number)
        self._after(number)

    def _wait_for_leases(self, world: World, owner: str, holder: threading.Thread) -> None:
        deadline = time.monotonic() + CHILD_SECONDS
        while not world.ledger.rows("SELECT 1 FROM recon.leases WHERE owner = %s", owner):
            assert time.monotonic() < deadline, "the first scheduler takes no lease"
            if not holder.is_alive():
                return
            time.sleep(0.002)


@dataclass(frozen=True)
class Errand:
    """What a child process is told: which cycle to run, and at which moment to die."""

    place: Place
    run_id: str
    now_ms: int
    dies_at: int
    """the so-manieth round trip to the database; 0 never"""
    writing_only: bool
    """count only the round trips of connections that write"""
    before: bool
    """die before the round trip, or after it"""


def _child(errand: Errand, answer: Any) -> None:
    """Run one cycle, and die at the moment that was told."""
    passed = 0
    lock = threading.Lock()
    real = psycopg.Connection.wait

    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal passed
        name = self.info.parameter_status("application_name") or ""
        if errand.writing_only and not name.startswith(WRITING):
            return real(self, *args, **kwargs)
        with lock:
            passed += 1
            dies = passed == errand.dies_at
        if dies and errand.before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(self, *args, **kwargs)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    psycopg.Connection.wait = wait  # type: ignore[method-assign]
    cycles = Scheduler(errand.place).run(errand.run_id, errand.now_ms)
    failures = [
        f"{cycle.profile_id}: {failure.stage}: {failure.message}"
        for cycle in cycles
        for failure in [cycle.failure, *(stage.failure for stage in cycle.stages.values())]
        if failure
    ]
    answer.send((passed, names_of(cycles), failures))


@dataclass
class Killed:
    """Every cycle is begun in a process that is killed at a moment drawn from the seed, then run again until it is through."""

    world: World
    after: Callable[[int], None]
    kills_per_cycle: int = 1
    log: Log = field(default_factory=Log)
    deaths: int = 0
    deaths_while_writing: int = 0
    _longest: dict[bool, int] = field(default_factory=lambda: {True: 30, False: 60})

    def __post_init__(self) -> None:
        self._rng = random.Random(f"{self.world.plan.seed}:kills")
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["recon_pipeline_tests.soak.disturbed"])

    def run(self, world: World, number: int, trouble: list[Trouble]) -> None:
        for attempt in range(self.kills_per_cycle):
            writing = self._rng.random() < 0.7
            moment = self._rng.randrange(1, self._longest[writing] + 1)
            errand = self._errand(number, attempt, moment, writing)
            again = [told for told in trouble if attempt == 0 or told.kind is not FaultKind.BUSY]
            arm(world, again)
            code, told = self._run(errand)
            if code == -signal.SIGKILL:
                self.deaths += 1
                self.deaths_while_writing += writing
            else:
                assert code == 0, f"the process ended with {code}"
                self._longest[writing] = max(12, told[0])
            expire_leases(world)
        arm(world, [told for told in trouble if told.kind is not FaultKind.BUSY])
        code, told = self._run(self._errand(number, self.kills_per_cycle, 0, writing=False))
        assert code == 0, f"the process ended with {code}"
        self._longest[False] = max(12, told[0])
        names: list[Name] = told[1]
        self.log.names = names
        self.log.ever.update(dict.fromkeys(names))
        self.log.failures += [f"cycle {number} {failure}" for failure in told[2]]
        self.after(number)

    def _errand(self, number: int, attempt: int, dies_at: int, writing: bool) -> Errand:
        return Errand(
            Place.of(self.world),
            f"cycle-{number}-{attempt}",
            self.world.now_ms,
            dies_at,
            writing,
            before=self._rng.random() < 0.5,
        )

    def _run(self, errand: Errand) -> tuple[int | None, Any]:
        receiver, sender = self._processes.Pipe(duplex=False)
        child = self._processes.Process(target=_child, args=(errand, sender))
        child.start()
        sender.close()
        told = None
        try:
            if receiver.poll(CHILD_SECONDS):
                told = receiver.recv()
        except EOFError:
            told = None
        child.join(CHILD_SECONDS)
        assert child.exitcode is not None, "the process hangs"
        return child.exitcode, told
