"""`recon migrate`: bring a database to the state this version needs."""

import click

from recon_pipeline.ledger.database import DatabaseUnavailableError, describe
from recon_pipeline.ledger.migrate import MigrationError, pending
from recon_pipeline.ledger.migrate import migrate as apply_migrations


@click.command()
@click.option(
    "--database-url",
    envvar="RECON_DATABASE_URL",
    required=True,
    show_envvar=True,
    help="The bots' database. Its role must be allowed to create schemas and roles.",
)
@click.option("--check", is_flag=True, help="Change nothing: list what would run, exit 1 if there is anything.")
def migrate(database_url: str, check: bool) -> None:
    """Bring the database to this version: create what is missing, never drop or rewrite.

    The bots' own tables are created only where they are absent. Any number of processes may run this at once.

    \b
    Example:
      RECON_DATABASE_URL=postgresql://recon@db/bots recon migrate
    """  # noqa: D301
    try:
        names = pending(database_url) if check else apply_migrations(database_url)
    except (MigrationError, DatabaseUnavailableError) as error:
        raise click.ClickException(str(error)) from None
    for name in names:
        click.echo(f"{'due' if check else 'applied'}  {name}")
    if not names:
        click.echo(f"Up to date: {describe(database_url)}.")
    if check and names:
        raise click.exceptions.Exit(1)
