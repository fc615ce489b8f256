"""`recon doctor`: is everything there that a run needs? Reads only."""

from dataclasses import dataclass
from pathlib import Path

import click

from recon_pipeline.exchange.alpaca import AlpacaClient
from recon_pipeline.exchange.credentials import AccountCredentials
from recon_pipeline.exchange.gateway import ExchangeError
from recon_pipeline.exchange.rate_budget import RateBudgets
from recon_pipeline.ledger.database import DatabaseUnavailableError, connect, describe
from recon_pipeline.ledger.reads import PostgresLedger
from recon_pipeline.ledger.requirements import Stops, check_database
from recon_pipeline.settings import SettingError, Settings, read_settings

_SIGNS = {Stops.NOTHING: "note", Stops.APPLY: "NO APPLY", Stops.EVERYTHING: "STOP"}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    about: str
    text: str
    stops: Stops | None = None
    """None: it is as it has to be"""


@click.command()
@click.option("--dagster-url", envvar="DAGSTER_POSTGRES_URL", default="", show_envvar=True, help="Dagster's storage.")
@click.option("--dagster-home", envvar="DAGSTER_HOME", default="", show_envvar=True, help="Where dagster.yaml is.")
def doctor(dagster_url: str, dagster_home: str) -> None:
    """Check settings, database, Dagster's storage and every exchange account; change nothing.

    Exit status 1 if a run could not apply: each line says what is missing and what to do about it.

    \b
    Example:
      . .recon/env && recon doctor
    """  # noqa: D301
    try:
        settings = read_settings()
    except SettingError as error:
        raise click.ClickException(str(error)) from None
    worst = Stops.NOTHING
    for findings in (
        _database(settings),
        _dagster(dagster_url, dagster_home),
        _accounts(settings),
        _rules(settings),
    ):
        for finding in findings:
            sign = "ok" if finding.stops is None else _SIGNS[finding.stops]
            click.echo(f"{sign:>8}  {finding.about}: {finding.text}")
            worst = max(worst, finding.stops or Stops.NOTHING)
    if worst > Stops.NOTHING:
        raise click.exceptions.Exit(1)


def _database(settings: Settings) -> list[Finding]:
    if not settings.database_url:
        return [Finding("database", "RECON_DATABASE_URL is not set.", Stops.EVERYTHING)]
    found = [Finding("database", str(problem), problem.stops) for problem in check_database(settings.database_url)]
    return found or [Finding("database", f"{describe(settings.database_url)} has all that is needed.")]


def _dagster(url: str, home: str) -> list[Finding]:
    if not url:
        return [Finding("dagster", "DAGSTER_POSTGRES_URL is not set; dagster.yaml reads it.", Stops.EVERYTHING)]
    scheme, _, rest = url.partition("://")
    if scheme not in {"postgresql+psycopg2", "postgresql"}:
        text = "DAGSTER_POSTGRES_URL has to begin with postgresql+psycopg2://."
        return [Finding("dagster", text, Stops.EVERYTHING)]
    plain = f"postgresql://{rest}"
    found = []
    try:
        connect(plain, application_name="recon doctor").close()
    except DatabaseUnavailableError as error:
        found.append(Finding("dagster", str(error), Stops.EVERYTHING))
    if not (home and Path(home, "dagster.yaml").is_file()):
        text = "DAGSTER_HOME has to be a directory with dagster.yaml, or Dagster keeps nothing."
        found.append(Finding("dagster", text, Stops.EVERYTHING))
    return found or [Finding("dagster", f"{describe(plain)} answers.")]


def _accounts(settings: Settings) -> list[Finding]:
    try:
        with PostgresLedger(settings.database_url, application_name="recon doctor") as ledger:
            profiles = ledger.profiles()
    except DatabaseUnavailableError:
        return []  # said above
    found = []
    budgets = RateBudgets()
    for account_id in sorted({str(profile["account_id"]) for profile in profiles}):
        about = f"account {account_id}"
        try:
            keys = settings.account(account_id)
            credentials = AccountCredentials(keys.account_id, keys.key_id, keys.secret_key, keys.base_url)
            with AlpacaClient(credentials, budget=budgets.of(account_id)) as client:
                status = str(client.account().get("status", "unknown"))
        except (SettingError, ExchangeError, ValueError) as error:
            found.append(Finding(about, str(error), Stops.APPLY))
        else:
            found.append(Finding(about, f"{keys.base_url} answers, status {status}."))
    return found or [Finding("accounts", "the table profiles is empty: nothing to reconcile.", Stops.NOTHING)]


def _rules(settings: Settings) -> list[Finding]:
    policy = settings.exit_backfill
    if not policy.enabled:
        return [Finding("exit backfill", "disabled; ENABLE_RECON_EXIT_BACKFILL=true enables it.", Stops.NOTHING)]
    review = "a reviewed digest is required" if settings.require_review else "no review is required"
    mode = "the schedule only proposes" if settings.exit_backfill_dry_run else "THE SCHEDULE APPLIES"
    return [Finding("exit backfill", f"enabled; {mode}; {review}; position gate {policy.position_gate.value}.")]
