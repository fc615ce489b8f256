"""`recon demo`: everything once, on a demo book with known truth, with real Dagster runs on a real Postgres."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from decimal import Decimal

    import dagster as dg

    from recon_pipeline.sandbox.demo_verify import Verdict
    from recon_pipeline.sandbox.stage import Stage

PREFIX = "demo"


@click.command()
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    default=".recon",
    show_default=True,
    help="Directory for everything that runs.",
)
def demo(home: Path) -> None:
    """Find ghosts on a demo book, prove them, close them, and compare the ledger with the truth.

    Starts an embedded Postgres and a simulated Alpaca, pauses trading, runs the real jobs (dry run, then an apply of
    exactly the plans that were read), and judges the result. Starts over each time: what an earlier run left in the home
    is dropped. `recon up` shows the runs afterwards.

    Exit status 0 only if every ghost was closed and nothing else was touched.

    \b
    Example:
      recon demo --home /tmp/demo
    """  # noqa: D301
    from rich.console import Console

    from recon_pipeline.ledger.migrate import MigrationError
    from recon_pipeline.sandbox.demo_verify import Picture, judge
    from recon_pipeline.sandbox.postgres import EmbeddedPostgresError
    from recon_pipeline.sandbox.stage import SandboxError, running_stage

    console = Console(highlight=False)
    begin = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - begin:5.1f} s[/dim]  {text}", soft_wrap=True)

    try:
        with console.status("starting") as status, running_stage(home, PREFIX, fresh=True, say=say) as stage:
            book = stage.books[PREFIX]
            before = Picture.of(stage.database_url, book)
            say(f"{len(book.profiles)} profiles on {len(book.account_ids)} accounts, {len(book.truths)} trades")
            status.update("loading Dagster")
            with _dagster(stage) as runs:
                runs.launch_all(status.update, say)
            status.update("comparing the ledger with the truth")
            verdict = judge(stage.database_url, book, before)
    except (SandboxError, EmbeddedPostgresError, MigrationError) as error:
        raise click.ClickException(str(error)) from None
    _print(console, verdict)
    say("done" if verdict.is_true else "NOT AS IT HAS TO BE")
    if not verdict.is_true:
        raise click.exceptions.Exit(1)


class _Runs:
    """The jobs of the exit backfill, run on an instance that keeps them."""

    def __init__(self, stage: "Stage", definitions: "dg.Definitions", instance: "dg.DagsterInstance") -> None:
        self._stage = stage
        self._definitions = definitions
        self._instance = instance

    def launch_all(self, status: Callable[[str], None], say: Callable[[str], None]) -> None:
        """Pause trading, dry run all profiles, apply each reviewed plan."""
        from recon_pipeline.defs.partitions import PROFILES

        profiles = sorted(profile.profile_id for profile in self._stage.books[PREFIX].profiles)
        self._instance.add_dynamic_partitions(PROFILES, profiles)
        status("pausing trading")
        self._run("pause_trading", config={"scope": "all", "reason": "demo of the exit backfill"})
        say("trading is paused")
        status("dry run of every profile")
        self._run(
            "exit_backfill_dry_run",
            tags={
                "dagster/asset_partition_range_start": profiles[0],
                "dagster/asset_partition_range_end": profiles[-1],
            },
        )
        planned = self._planned()
        say(f"dry run done: {sum(1 for plan in planned if plan['proposals'])} plans with rows to write")
        for number, plan in enumerate(planned, 1):
            if plan["proposals"]:
                status(f"applying {number} of {len(planned)}: {plan['profile_id']}")
                self._run("exit_backfill_apply", plan["profile_id"], {"expected_digest": plan["digest"]})
        say("applied what was read")

    def _planned(self) -> list[dict[str, Any]]:
        """Read what the dry run wrote down, as a reviewer does."""
        from recon_pipeline.ledger.database import connect
        from recon_pipeline.ledger.statements import statement

        with connect(self._stage.database_url, application_name="recon demo") as connection:
            return connection.execute(statement("select_demo_plans"), {"pattern": f"{PREFIX}-%"}).fetchall()

    def _run(
        self,
        name: str,
        partition: str | None = None,
        config: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        from recon_pipeline.sandbox.stage import SandboxError

        job = self._definitions.resolve_job_def(name)
        run_config: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        if config:
            run_config["ops"] = {node.name: {"config": config} for node in job.nodes}
        result = job.execute_in_process(
            run_config=run_config,
            instance=self._instance,
            partition_key=partition,
            tags=tags,
            raise_on_error=False,
        )
        if not result.success:
            reasons = [text for event in result.all_events if event.is_failure and (text := _failure(event))]
            raise SandboxError(
                f"{name} of {partition or 'all profiles'} failed: {' / '.join(reasons) or 'see its run'}"
            )


def _failure(event: Any) -> str:
    """Return what the event says went wrong, down to the cause; empty where it says nothing."""
    error = getattr(event.event_specific_data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    return "" if error is None else str(error.message).strip()


@contextmanager
def _dagster(stage: "Stage") -> Iterator[_Runs]:
    environment = stage.process_environment(os.environ, rules=False)
    os.environ.clear()  # Dagster's instance and the run's settings read it from there
    os.environ.update(environment)
    import warnings

    import dagster as dg

    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    warnings.filterwarnings("ignore", category=dg.PreviewWarning)
    from recon_pipeline.definitions import defs

    with dg.DagsterInstance.get() as instance:
        yield _Runs(stage, defs, instance)


def _print(console: Any, verdict: "Verdict") -> None:
    from rich.table import Table

    table = Table(title="What became of every trade", title_justify="left", header_style="bold")
    for column in ("trade", "what is true of it", "open", "written", "outcome"):
        table.add_column(column, justify="right" if column in {"open", "written"} else "left")
    for trade in sorted(verdict.trades, key=lambda trade: (not trade.truth.is_ghost, bool(trade.truth.left_because))):
        truth = trade.truth
        outcome = "[green]closed[/green]" if truth.is_ghost else "as it was"
        if truth.left_because:
            outcome = "[yellow]left for a person[/yellow]"
        if trade.problems:
            outcome = f"[red]WRONG[/red]: {'; '.join(trade.problems)}"
        table.add_row(truth.trade_id, truth.story, _short(truth.open_qty), _short(trade.written), outcome)
    console.print(table)
    for text in (*verdict.wrong_writes, *verdict.other_problems):
        console.print(f"[red]WRONG WRITE[/red] {text}")
    console.print(f"ghosts closed [bold]{len(verdict.closed)} of {len(verdict.ghosts)}[/bold]")
    console.print(f"wrong writes [bold]{len(verdict.wrong_writes)}[/bold]")
    console.print(f"left for a person [bold]{len(verdict.left)}[/bold]")
    for trade in verdict.left:
        console.print(f"  {trade.truth.trade_id}: {trade.truth.story} ({trade.reason})", soft_wrap=True)


def _short(quantity: "Decimal") -> str:
    text = f"{quantity:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
