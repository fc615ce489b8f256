"""The command line: `recon`.

Here: the group and the list of its commands. Each command is a module of its own, imported only when it is called, so that
`recon evaluate` never pays for Dagster and `recon --help` pays for nothing. Not here: any work.
"""

import importlib
from typing import NamedTuple

import click


class Command(NamedTuple):
    """Where a command is, and its line in the list."""

    place: str
    summary: str


COMMANDS = {
    "demo": Command("recon_pipeline.cli.demo:demo", "Find, prove, close and verify ghosts on a demo book."),
    "up": Command("recon_pipeline.cli.up:up", "Run the sandbox: Postgres, simulated exchange, Dagster UI."),
    "migrate": Command("recon_pipeline.cli.migrate:migrate", "Bring the database to this version."),
    "doctor": Command("recon_pipeline.cli.doctor:doctor", "Check settings, database, Dagster and exchange accounts."),
    "evaluate": Command("recon_pipeline.cli.evaluate:evaluate", "Decide books from standard input, offline."),
    "serve": Command("recon_pipeline.cli.serve:serve", "Answer health, metrics and the order status page over HTTP."),
    "stream": Command("recon_pipeline.cli.stream:stream", "Listen to order updates and write them as they happen."),
    "exchange-sim": Command("recon_pipeline.cli.exchange_sim:exchange_sim", "Run the simulated Alpaca alone."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """List the names in the order an operator meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one command."""
        known = COMMANDS.get(cmd_name)
        if known is None:
            return None
        module, _, attribute = known.place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="recon-pipeline", prog_name="recon")
def main() -> None:
    """Reconcile the ledger of trading bots with the exchange: prove what is missing, apply it only through gates.

    \b
    Examples:
      recon demo                 everything once, on a demo book, with a summary
      recon up                   the same by hand, in the Dagster UI
      recon evaluate < book.jsonl
    """  # noqa: D301
