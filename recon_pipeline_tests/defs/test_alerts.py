"""The sensors that tell people and give trading back, on a real instance, a real database and a webhook that listens."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from recon_pipeline.alerting.redaction import Redactor
from recon_pipeline.apply import set_trading_state
from recon_pipeline.defs import failed_runs
from recon_pipeline.defs.alerts import AlertsNotDeliveredError, deliver_alerts, run_failures, watchdog_auto_resume
from recon_pipeline.defs.control import pause_trading
from recon_pipeline.defs.partitions import PROFILES
from recon_pipeline.defs.resources import Outside
from recon_pipeline.defs.schedules import RANGE_END, RANGE_START
from recon_pipeline.domain.corrections import Event, EventType, Severity
from recon_pipeline.domain.watchdog import PARITY_WATCHDOG_SOURCE, WatchdogState
from recon_pipeline.ledger.cycle_state import read_cycle_state, save_cycle_state
from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.events import raise_events
from recon_pipeline.ledger.leases import acquire_leases, release_leases
from recon_pipeline_tests.alerting.receiver import Receiver, receiving

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
DOWN = "postgresql://nobody:hunter2@127.0.0.1:1/nothing"


@dataclass
class Desk:
    """What an operator's sensors see."""

    database_url: str
    receiver: Receiver
    instance: dg.DagsterInstance
    environment: dict[str, str]
    now: dt.datetime = NOW
    cursors: dict[str, str] = field(default_factory=dict)

    @property
    def outside(self) -> Outside:
        return Outside(self.environment, clock=lambda: self.now)

    def sense(self, sensor: dg.SensorDefinition) -> str:
        """Evaluate one tick with the cursor that the last one left; return what the tick says."""
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(sensor.name),
            resources={"outside": self.outside},
            sensor_name=sensor.name,
        ) as context:
            answer = sensor.evaluate_tick(context)
        self.cursors[sensor.name] = answer.cursor
        assert not answer.run_requests
        return str(answer.skip_message)

    def rows(self, query: str) -> list[dict[str, Any]]:
        with connect(self.database_url) as connection:
            return connection.execute(query.encode()).fetchall()

    def fail(self, scope: str, **tags: str) -> str:
        """A run that fails; return its id."""
        result = pause_trading.execute_in_process(
            run_config={"ops": {"pause": {"config": {"scope": scope, "reason": "why"}}}},
            instance=self.instance,
            resources={"outside": self.outside},
            tags=tags,
            raise_on_error=False,
        )
        assert not result.success
        return result.run_id

    def die(self, text: str, *, origin: RemoteJobOrigin | None = None, **tags: str) -> str:
        """A run whose process ended without a word, as the run monitor reports it; return its id."""
        run = self.instance.add_run(
            dg.DagsterRun(job_name="reconcile", status=dg.DagsterRunStatus.STARTED, tags=tags, remote_job_origin=origin)
        )
        self.instance.report_run_failed(run, text)
        return run.run_id

    def events(self) -> list[dict[str, Any]]:
        return self.rows("SELECT type, severity, message, profile_id, run_id, details FROM recon.events ORDER BY id")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """One instance for all: what failed in another test was there before the first look."""
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as made:
        yield made


@pytest.fixture
def desk(database_url: str, history: dg.DagsterInstance) -> Iterator[Desk]:
    with receiving() as receiver:
        environment = {
            "RECON_DATABASE_URL": database_url,
            "RECON_ALERT_WEBHOOK_URL": receiver.url,
            "RECON_DAGSTER_URL": "https://dagster.example",
            "APCA_API_KEY_ID": "AKEXAMPLE0123",
            "APCA_API_SECRET_KEY": "verysecretindeed",
        }
        desk = Desk(database_url, receiver, history, environment)
        desk.rows(
            "INSERT INTO public.profiles (profile_id, user_id, account_id) VALUES ('p1', 'u1', 'a1'), ('p2', 'u2', 'a1')"
            " RETURNING profile_id"
        )
        yield desk


def tell(desk: Desk, message: str) -> None:
    with connect(desk.database_url, "recon_reader") as connection:
        event = Event(EventType.RECONCILIATION_DEGRADED, Severity.ERROR, message, profile_id="p1")
        raise_events(connection, [event], run_id="0b5a-11", now=desk.now)


# -- deliver_alerts


def test_an_event_reaches_the_webhook_within_a_tick_without_the_exchanges_keys(desk: Desk):
    assert desk.sense(deliver_alerts) == "Nothing new."
    tell(desk, "401 for AKEXAMPLE0123 with verysecretindeed")
    assert desk.sense(deliver_alerts) == "1 message with 1 event delivered, 1 new event logged, 0 messages waiting."
    [request] = desk.receiver.received
    assert "401 for *** with *** <https://dagster.example/runs/0b5a-11|run>" in request.body["text"]
    assert desk.sense(deliver_alerts) == "Nothing new."


def test_a_webhook_that_refuses_fails_the_tick_without_its_address(desk: Desk):
    tell(desk, "it broke")
    desk.receiver.answer(404, "no_service")
    with pytest.raises(AlertsNotDeliveredError) as failed:
        desk.sense(deliver_alerts)
    text = str(failed.value)
    assert text.endswith("1 message waiting. the webhook answers 404: no_service")
    assert desk.receiver.url not in text
    assert desk.sense(deliver_alerts) == "0 messages with 0 events delivered, 0 new events logged, 1 message waiting."


@pytest.mark.parametrize("sensor", [deliver_alerts, run_failures, watchdog_auto_resume], ids=lambda sensor: sensor.name)
def test_without_a_database_a_sensor_says_so_without_its_password(desk: Desk, sensor: dg.SensorDefinition):
    desk.cursors["run_failures"] = "0"
    desk.environment["RECON_DATABASE_URL"] = DOWN
    said = desk.sense(sensor)
    assert "can't connect to database nothing on 127.0.0.1:1 as nobody" in said
    assert "hunter2" not in said
    del desk.environment["RECON_DATABASE_URL"]
    assert "RECON_DATABASE_URL is not set" in desk.sense(sensor)


def test_the_sensors_run_by_themselves():
    sensors = (deliver_alerts, run_failures, watchdog_auto_resume)
    assert {sensor.default_status for sensor in sensors} == {dg.DefaultSensorStatus.RUNNING}


# -- run_failures


def test_a_failed_run_is_an_event_with_its_job_its_profiles_and_why(desk: Desk):
    desk.die("long ago")
    assert "from now on" in desk.sense(run_failures)
    run_id = desk.fail("p9", **{"dagster/partition": "p1"})
    assert desk.sense(run_failures) == "1 failed run told of 1 looked at."
    [event] = desk.events()
    why = "There is no profile 'p9': the scope is a profile of the table profiles, or 'all'."
    assert event == {
        "type": "SYSTEM_ERROR",
        "severity": "ERROR",
        "message": f"Run {run_id[:8]} of pause_trading failed for p1: {why}",
        "profile_id": "p1",
        "run_id": run_id,
        "details": {"job": "pause_trading", "run_id": run_id, "profiles": ["p1"], "error": why},
    }
    # Young failures are looked at again, and told once.
    assert desk.sense(run_failures) == "0 failed runs told of 1 looked at."
    desk.now = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=90)  # the record has the real time
    desk.sense(run_failures)
    assert desk.sense(run_failures) == "No run has failed."
    assert len(desk.events()) == 1


def test_more_than_five_failures_are_told_in_one_tick(desk: Desk):
    desk.sense(run_failures)
    ids = [desk.die(f"killed {number}") for number in range(7)]
    assert desk.sense(run_failures) == "7 failed runs told of 7 looked at."
    assert [event["run_id"] for event in desk.events()] == ids
    assert desk.events()[6]["message"] == f"Run {ids[6][:8]} of reconcile failed: killed 6"


def test_the_same_failure_every_five_minutes_is_told_every_ten(desk: Desk):
    desk.sense(run_failures)
    for _ in range(3):
        desk.die("the exchange refuses")
        desk.sense(run_failures)
        desk.now += dt.timedelta(minutes=5)
    assert len(desk.events()) == 2


def test_a_failed_shard_names_its_profiles(desk: Desk):
    keys = [f"s{number}" for number in range(8)]
    desk.instance.add_dynamic_partitions(PROFILES, keys)
    desk.sense(run_failures)
    desk.die("killed", **{RANGE_START: "s1", RANGE_END: "s7"})
    desk.sense(run_failures)
    [event] = desk.events()
    assert event["details"]["profiles"] == keys[1:]
    assert "failed for s1, s2, s3, s4, s5 and 2 more profiles: " in event["message"]
    assert event["profile_id"] is None


def test_a_failure_while_the_database_was_away_is_told_later(desk: Desk):
    desk.sense(run_failures)
    desk.die("killed")
    desk.environment["RECON_DATABASE_URL"] = DOWN
    desk.sense(run_failures)
    desk.now += dt.timedelta(hours=1)
    desk.environment["RECON_DATABASE_URL"] = desk.database_url
    assert desk.sense(run_failures) == "1 failed run told of 1 looked at."


def test_what_a_failed_run_says_is_told_without_secrets(desk: Desk):
    desk.sense(run_failures)
    desk.die("There is no AKEXAMPLE0123")
    desk.sense(run_failures)
    [event] = desk.events()
    assert "There is no ***" in event["message"]
    assert "AKEXAMPLE0123" not in str(event)


def test_a_run_of_another_projects_code_is_not_told(desk: Desk):
    begin = failed_runs.newest_failure(desk.instance)
    desk.die("theirs", origin=job_origin("another project"))
    ours = [desk.die("ours", origin=job_origin("recon_pipeline")), desk.die("started in a process")]
    found = failed_runs.look(desk.instance, after=begin, now=desk.now, redact=Redactor(), location="recon_pipeline")
    assert list(found.run_ids) == ours


def job_origin(location: str) -> RemoteJobOrigin:
    target = LoadableTargetOrigin(module_name="somewhere")
    code = ManagedGrpcPythonEnvCodeLocationOrigin(loadable_target_origin=target, location_name=location)
    return RemoteJobOrigin(RemoteRepositoryOrigin(code, "__repository__"), "reconcile")


# -- watchdog_auto_resume

CLEAN = WatchdogState("p1", clean_cycles=2, last_clean_ms=int((NOW - dt.timedelta(minutes=1)).timestamp() * 1000))


def pause(desk: Desk, scope: str = "p1", source: str = PARITY_WATCHDOG_SOURCE, minutes: int = 20) -> None:
    since = NOW - dt.timedelta(minutes=minutes)
    set_trading_state(desk.database_url, scope, "PAUSED", source, "money out of line", since)


def remember(desk: Desk, state: WatchdogState) -> None:
    with connect(desk.database_url, "recon_reader") as connection:
        leases = acquire_leases(connection, [state.profile_id], owner="test", ttl_seconds=60)
        assert save_cycle_state(connection, leases["p1"], confirmations=None, parity=None, watchdog=state)
        release_leases(connection, leases.values())


def trading(desk: Desk) -> dict[str, tuple[str, str]]:
    rows = desk.rows("SELECT scope, state, source FROM public.trading_control ORDER BY scope")
    return {row["scope"]: (row["state"], row["source"]) for row in rows}


def test_the_watchdogs_own_pause_is_lifted_remembered_and_told(desk: Desk):
    assert desk.sense(watchdog_auto_resume) == "The watchdog has paused nobody."
    pause(desk)
    remember(desk, CLEAN)
    assert desk.sense(watchdog_auto_resume) == "p1: resumed"
    assert trading(desk) == {"p1": ("RUNNING", PARITY_WATCHDOG_SOURCE)}
    with connect(desk.database_url, "recon_reader") as connection:
        state = read_cycle_state(connection, ["p1"]).watchdogs["p1"]
    assert (state.resumed_ms, state.paused_ms, state.clean_cycles) == (int(NOW.timestamp() * 1000), None, 0)
    [event] = desk.events()
    assert (event["type"], event["severity"], event["profile_id"]) == ("TRADING_RESUMED", "INFO", "p1")
    assert desk.rows("SELECT owner FROM recon.leases") == [{"owner": ""}]
    assert desk.sense(watchdog_auto_resume) == "The watchdog has paused nobody."


@pytest.mark.parametrize(
    ("state", "minutes", "environment", "said"),
    [
        (CLEAN, 14, {}, "min_pause"),
        (CLEAN, 14, {"RECON_WATCHDOG_AUTO_RESUME_MIN_PAUSE_MS": "60000"}, "resumed"),
        (replace(CLEAN, clean_cycles=1), 20, {}, "not_clean_long_enough"),
        (replace(CLEAN, clean_cycles=1), 20, {"RECON_WATCHDOG_AUTO_RESUME_CLEAN_CYCLES": "1"}, "resumed"),
        (replace(CLEAN, resumed_ms=CLEAN.last_clean_ms - 1_700_000), 20, {}, "cooldown"),
        (
            replace(CLEAN, resumed_ms=CLEAN.last_clean_ms - 1_700_000),
            20,
            {"RECON_WATCHDOG_AUTO_RESUME_COOLDOWN_MS": "1000000"},
            "resumed",
        ),
        (CLEAN, 20, {"ENABLE_RECON_WATCHDOG_AUTO_RESUME": "false"}, "auto_resume_disabled"),
    ],
)
def test_a_pause_is_lifted_only_when_it_is_due(
    desk: Desk, state: WatchdogState, minutes: int, environment: dict[str, str], said: str
):
    pause(desk, minutes=minutes)
    remember(desk, state)
    desk.environment |= environment
    assert desk.sense(watchdog_auto_resume) == f"p1: {said}"
    assert trading(desk)["p1"][0] == ("RUNNING" if said == "resumed" else "PAUSED")
    assert len(desk.events()) == (said == "resumed")


def test_a_persons_pause_is_never_lifted(desk: Desk):
    pause(desk, source="ops")
    remember(desk, CLEAN)
    assert desk.sense(watchdog_auto_resume) == "The watchdog has paused nobody."
    pause(desk)
    pause(desk, scope="all", source="ops")
    assert desk.sense(watchdog_auto_resume) == "p1: paused_by_other"
    assert trading(desk) == {"all": ("PAUSED", "ops"), "p1": ("PAUSED", PARITY_WATCHDOG_SOURCE)}


def test_a_pause_of_all_trading_is_not_the_watchdogs_whatever_it_says(desk: Desk):
    pause(desk, scope="all")
    assert desk.sense(watchdog_auto_resume) == "The watchdog has paused nobody."
    assert trading(desk)["all"][0] == "PAUSED"


def test_a_profile_that_another_run_works_on_is_left_for_the_next_tick(desk: Desk):
    pause(desk)
    remember(desk, CLEAN)
    with connect(desk.database_url, "recon_reader") as connection:
        leases = acquire_leases(connection, ["p1"], owner="a cycle", ttl_seconds=60)
        assert desk.sense(watchdog_auto_resume) == "p1: another run works on it"
        assert trading(desk)["p1"][0] == "PAUSED"
        release_leases(connection, leases.values())
    assert desk.sense(watchdog_auto_resume) == "p1: resumed"


def test_an_apply_that_holds_the_pause_is_waited_for_and_then_left_for_the_next_tick(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    pause(desk)
    remember(desk, CLEAN)
    monkeypatch.setattr("recon_pipeline.cycle.resuming.LOCK_PATIENCE_MS", 200)
    with connect(desk.database_url) as apply, apply.transaction():
        apply.execute("SELECT FROM public.trading_control WHERE scope = 'p1' FOR SHARE")
        assert desk.sense(watchdog_auto_resume) == "p1: another run works on it"
    assert trading(desk)["p1"][0] == "PAUSED"
    assert desk.sense(watchdog_auto_resume) == "p1: resumed"
