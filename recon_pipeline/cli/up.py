"""`recon up`: the sandbox in the foreground, with the Dagster UI and the order status page."""

import threading
import time
from pathlib import Path

import click

DEFAULT_HOME = ".recon"


@click.command()
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_HOME,
    show_default=True,
    help="Directory for everything that runs.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the UI.  [default: 3000, or a free one]")
@click.option("--no-ui", is_flag=True, help="Run all but the web servers.")
@click.option("--fresh", is_flag=True, help="Drop what earlier runs left in the home, and load a new book.")
def up(home: Path, port: int | None, no_ui: bool, fresh: bool) -> None:
    """Run the sandbox: an embedded Postgres, a simulated Alpaca, a demo book, Dagster and `recon serve` over them.

    Everything stays in one directory and ends with Ctrl-C; the next start goes on where this one stopped. No key, no
    account and no other service is needed, and nothing outside this machine is reached.

    \b
    Examples:
      recon up                           then open the printed addresses
      recon up --home /tmp/r --port 3100 --fresh
    """  # noqa: D301
    from recon_pipeline.ledger.migrate import MigrationError
    from recon_pipeline.sandbox.postgres import EmbeddedPostgresError
    from recon_pipeline.sandbox.stage import SandboxError, running_stage
    from recon_pipeline.sandbox.supervisor import run_dagster, stop_on_signals

    begin = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"[{time.monotonic() - begin:5.1f} s] {text}")

    stopping = threading.Event()
    stop_on_signals(stopping)
    try:
        with running_stage(home, "dev", fresh=fresh, say=say) as stage:
            run_dagster(stage, ui=not no_ui, port=port, say=say, stopping=stopping)
            say("stopping")
    except (SandboxError, EmbeddedPostgresError, MigrationError) as error:
        raise click.ClickException(str(error)) from None
    say("stopped")
