"""The sensors that tell people and that give trading back: delivery of events, failed runs, the watchdog's auto-resume.

Dagster concept: sensors that do their small work inside the tick, and report it as the tick's text. Not here: how an event is
delivered (``alerting``), what is said of a failed run (``failed_runs``), when a pause is lifted (``domain.watchdog``) and how
(``cycle.resuming``).
"""

import uuid
from typing import Final

import dagster as dg

from recon_pipeline.alerting.delivery import deliver_events
from recon_pipeline.alerting.redaction import Redactor, secrets_of_url
from recon_pipeline.cycle.resuming import resume_where_due
from recon_pipeline.defs import failed_runs
from recon_pipeline.defs.resources import Outside
from recon_pipeline.defs.tables import counted
from recon_pipeline.ledger.database import READER, DatabaseUnavailableError, Row, connect, secrets_of
from recon_pipeline.ledger.events import raise_events
from recon_pipeline.settings import SettingError, Settings

_TICK_SECONDS: Final = 50.0
"""A tick may take 60 s; what is left is for the last message and for the start."""


class AlertsNotDeliveredError(Exception):
    """The webhook did not take a message: the tick is shown as failed, and the message is tried again later."""


@dg.sensor(
    name="deliver_alerts",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells people what happened: posts the events of recon.events that are at least as severe as "
    "RECON_ALERT_MIN_SEVERITY to RECON_ALERT_WEBHOOK_URL, events of one type in one message, and logs every event in the tick. "
    "A message that the webhook does not take fails the tick and is tried again, later each time, at most ten minutes apart.",
)
def deliver_alerts(context: dg.SensorEvaluationContext, outside: dg.ResourceParam[Outside]) -> dg.SkipReason:
    """Deliver what is due."""
    try:
        settings = outside.settings()
        profiles = _profiles(outside, settings)
        done = deliver_events(
            settings.database_url,
            settings.alerts,
            log=context.log,
            secrets=_exchange_secrets(settings, profiles),
            dashboard_url=settings.dashboard_url,
            budget_seconds=max(1.0, _TICK_SECONDS - settings.alerts.timeout_seconds),
        )
    except (SettingError, DatabaseUnavailableError) as error:
        return dg.SkipReason(str(error))
    said = (
        f"{counted(done.messages, 'message')} with {counted(done.events, 'event')} delivered, "
        f"{counted(done.logged, 'new event')} logged, {counted(done.waiting, 'message')} waiting."
    )
    if done.error:
        raise AlertsNotDeliveredError(f"{said} {done.error}")
    return dg.SkipReason(said if done.logged or done.messages or done.waiting else "Nothing new.")


@dg.sensor(
    name="run_failures",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Raises an event for every failed run, with its job, its profiles and why; deliver_alerts tells it. The same "
    "failure of the same profiles is told once in ten minutes. Runs that failed before the sensor's first tick are not told.",
)
def run_failures(context: dg.SensorEvaluationContext, outside: dg.ResourceParam[Outside]) -> dg.SensorResult:
    """Raise the events of the runs that have failed since the last tick.

    Not a run status sensor of Dagster's: that one looks at five runs a tick, and moves on from a run whose alert it could not
    raise.
    """
    if not context.cursor:
        newest = failed_runs.newest_failure(context.instance)
        return dg.SensorResult(skip_reason="The first look: what fails from now on is told.", cursor=str(newest))
    try:
        settings = outside.settings()
        redact = Redactor(
            [
                *_exchange_secrets(settings, _profiles(outside, settings)),
                *secrets_of_url(settings.alerts.webhook_url),
                *secrets_of(settings.database_url),
            ]
        )
        origin = context.code_location_origin
        look = failed_runs.look(
            context.instance,
            after=int(context.cursor),
            now=outside.now(),
            redact=redact,
            location=None if origin is None else origin.location_name,
        )
        told = 0
        with connect(settings.database_url, READER, "recon run failures") as connection:
            for event, run_id in zip(look.events, look.run_ids, strict=True):
                told += len(raise_events(connection, [event], run_id=run_id, now=outside.now()))
    except (SettingError, DatabaseUnavailableError) as error:
        # The cursor stays: what failed meanwhile is told when the database is back.
        return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)
    said = (
        f"{counted(told, 'failed run')} told of {len(look.events)} looked at." if look.events else "No run has failed."
    )
    return dg.SensorResult(skip_reason=said, cursor=str(look.after))


@dg.sensor(
    name="watchdog_auto_resume",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Resumes the trading that the position parity watchdog itself has paused, and no other: after "
    "RECON_WATCHDOG_AUTO_RESUME_MIN_PAUSE_MS, RECON_WATCHDOG_AUTO_RESUME_CLEAN_CYCLES clean cycles since, and not within "
    "RECON_WATCHDOG_AUTO_RESUME_COOLDOWN_MS of its last resume. ENABLE_RECON_WATCHDOG_AUTO_RESUME=false leaves it to people.",
)
def watchdog_auto_resume(context: dg.SensorEvaluationContext, outside: dg.ResourceParam[Outside]) -> dg.SkipReason:
    """Lift what is due."""
    try:
        settings = outside.settings()
        answers = resume_where_due(
            settings.database_url,
            settings.cycle.watchdog,
            owner=f"watchdog auto-resume {uuid.uuid4().hex[:12]}",
            run_id="",
            now=outside.now(),
            users={str(row["profile_id"]): str(row["user_id"] or "") for row in _profiles(outside, settings)},
        )
    except (SettingError, DatabaseUnavailableError) as error:
        return dg.SkipReason(str(error))
    if not answers:
        return dg.SkipReason("The watchdog has paused nobody.")
    lines = []
    for profile, decision in answers.items():
        lines.append(f"{profile}: {'another run works on it' if decision is None else decision.reason.value}")
        if decision is not None and decision.resume:
            context.log.warning("trading of %s resumed", profile)
    return dg.SkipReason("; ".join(lines))


def _profiles(outside: Outside, settings: Settings) -> list[Row]:
    with outside.ledger(settings) as ledger:
        return ledger.profiles()


def _exchange_secrets(settings: Settings, profiles: list[Row]) -> list[str]:
    """Return the keys of the profiles' accounts; an account without keys has none to give away."""
    secrets: list[str] = []
    for account_id in sorted({str(row["account_id"]) for row in profiles}):
        try:
            keys = settings.account(account_id)
        except SettingError:
            continue
        secrets += [keys.key_id, keys.secret_key]
    return secrets
