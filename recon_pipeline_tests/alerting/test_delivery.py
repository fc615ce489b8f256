"""Events reach people once: grouped, retried later, under one key for ever, by however many deliveries at once."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time

import psycopg
import pytest

from recon_pipeline.alerting.delivery import deliver_events, retry_delay_seconds
from recon_pipeline.alerting.destination import AlertSettings
from recon_pipeline.domain.corrections import EventType, Severity
from recon_pipeline_tests.alerting.receiver import PATH, receiving

LOG = logging.getLogger("test alerts")


@pytest.fixture
def deliver(database_url, receiver):
    def run(**more):
        settings = {"webhook_url": receiver.url, "webhook_format": "json"} | more
        return deliver_events(database_url, AlertSettings(**settings), log=LOG)

    return run


def make_due(reader):
    reader.execute("UPDATE recon.events SET next_attempt_at = now() - interval '1 second' WHERE delivered_at IS NULL")


def delivered(reader):
    return [
        row["id"] for row in reader.execute("SELECT id FROM recon.events WHERE delivered_at IS NOT NULL ORDER BY id")
    ]


# -- once


def test_an_event_is_posted_once_and_never_again(receiver, reader, tell, deliver):
    ids = tell("a step was skipped")
    done = deliver()
    assert (done.logged, done.messages, done.events, done.failed, done.waiting) == (1, 1, 1, 0, 0)
    assert receiver.event_ids == ids == delivered(reader)
    again = deliver()
    assert (again.logged, again.messages) == (0, 0)
    assert len(receiver.received) == 1


def test_events_of_one_type_are_one_message_and_other_types_are_others(receiver, tell, deliver):
    first = tell("a", "b")
    failed = tell("boom", type=EventType.SYSTEM_ERROR, severity=Severity.ERROR)
    second = tell("c")
    assert deliver().messages == 2
    assert [request.event_ids for request in receiver.received] == [first + second, failed]
    assert [request.body["count"] for request in receiver.received] == [3, 1]
    assert [request.key for request in receiver.received] == [f"recon-events-{first[0]}", f"recon-events-{failed[0]}"]


def test_very_many_events_are_several_messages(receiver, tell, deliver):
    ids = tell(*(f"event {n}" for n in range(230)))
    assert deliver().messages == 3
    assert [len(request.event_ids) for request in receiver.received] == [100, 100, 30]
    assert receiver.event_ids == ids


def test_what_is_less_severe_than_wanted_goes_to_the_log_alone(receiver, reader, tell, deliver, caplog):
    tell("fine", severity=Severity.INFO)
    loud = tell("not fine", severity=Severity.ERROR)
    with caplog.at_level(logging.INFO, LOG.name):
        assert deliver(min_severity="ERROR").logged == 2
    assert receiver.event_ids == loud
    assert [(record.levelname, record.getMessage().rsplit(": ")[-1]) for record in caplog.records] == [
        ("INFO", "fine"),
        ("ERROR", "not fine"),
    ]
    # Lowering the bar later does not dig up what was settled.
    assert deliver(min_severity="INFO").messages == 0
    assert len(delivered(reader)) == 2


def test_a_severity_that_nobody_knows_is_told(receiver, reader, tell, deliver):
    [number] = tell("odd")
    reader.execute("UPDATE recon.events SET severity = 'FATAL'")
    deliver(min_severity="ERROR")
    assert receiver.event_ids == [number]


def test_without_a_webhook_events_go_to_the_log(database_url, reader, tell, caplog):
    tell("a step was skipped")
    with caplog.at_level(logging.INFO, LOG.name):
        done = deliver_events(database_url, AlertSettings(), log=LOG)
    assert (done.logged, done.messages, done.waiting) == (1, 0, 0)
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().endswith("RECONCILIATION_DEGRADED profile_id=p1 run_id=run-1: a step was skipped")
    assert len(delivered(reader)) == 1


# -- refused


def test_a_refused_message_is_tried_again_later_with_the_same_events_and_key(receiver, reader, tell, deliver):
    ids = tell("a", "b")
    receiver.answer(503, "try later")
    first = deliver()
    assert (first.messages, first.failed, first.waiting) == (0, 1, 1)
    assert first.error == "the webhook answers 503: try later"
    rows = reader.execute("SELECT attempts, last_error, next_attempt_at - now() AS wait FROM recon.events").fetchall()
    assert {(row["attempts"], row["last_error"]) for row in rows} == {(1, "the webhook answers 503: try later")}
    assert all(25 < row["wait"].total_seconds() <= 30 for row in rows)
    assert deliver().failed == 0  # not due
    later = tell("c")
    make_due(reader)
    assert deliver().messages == 2
    assert [request.event_ids for request in receiver.received] == [ids, ids, later]
    assert len({request.key for request in receiver.received[:2]}) == 1
    assert delivered(reader) == ids + later
    assert reader.execute("SELECT count(last_error) AS n FROM recon.events").fetchone() == {"n": 0}


def test_the_wait_doubles_up_to_ten_minutes():
    assert [retry_delay_seconds(attempts) for attempts in range(7)] == [30, 60, 120, 240, 480, 600, 600]
    assert retry_delay_seconds(10_000) == 600


def test_a_webhook_that_asks_for_patience_gets_it(receiver, reader, tell, deliver):
    tell("a")
    receiver.answer(429, Retry_After="700")
    deliver()
    [row] = reader.execute("SELECT next_attempt_at - now() AS wait FROM recon.events").fetchall()
    assert 690 < row["wait"].total_seconds() <= 700


def test_a_webhook_that_is_down_is_tried_once_in_a_delivery(receiver, tell, deliver):
    tell("a")
    tell("b", type=EventType.SYSTEM_ERROR)
    receiver.answer(500)
    done = deliver()
    assert (done.messages, done.failed, done.waiting, len(receiver.received)) == (0, 1, 2, 1)
    # The one that was not tried is due at once.
    assert (deliver().messages, len(receiver.received)) == (1, 2)


def test_a_message_that_the_webhook_rejects_does_not_hold_up_the_others(receiver, tell, deliver):
    tell("a")
    other = tell("b", type=EventType.SYSTEM_ERROR)
    receiver.answer(400, "invalid_payload")
    done = deliver()
    assert (done.messages, done.failed, done.waiting) == (1, 1, 1)
    assert receiver.received[1].event_ids == other


def test_a_redirect_is_not_followed(receiver, tell, deliver):
    tell("a")
    with receiving() as elsewhere:
        receiver.answer(307, Location=elsewhere.url)
        assert deliver().error == "the webhook answers 307"
        assert elsewhere.received == []


def test_a_webhook_that_does_not_answer_costs_its_time_limit(receiver, tell, deliver):
    tell("a")
    release = threading.Event()
    receiver.before_answer = lambda: release.wait(10)
    began = time.monotonic()
    done = deliver(timeout_seconds=0.2)
    release.set()
    assert time.monotonic() - began < 5
    assert done.error == "no answer of 127.0.0.1 within 0.2 s"


def test_no_message_is_begun_once_the_time_is_spent(database_url, receiver, tell):
    for _ in range(3):
        tell("a")
    tell("b", type=EventType.SYSTEM_ERROR)
    ticks = iter([0.0, 1.0, 41.0])
    settings = AlertSettings(webhook_url=receiver.url)
    done = deliver_events(database_url, settings, log=LOG, clock=lambda: next(ticks))
    assert (done.messages, done.waiting) == (1, 1)


# -- at once, and killed


def test_many_deliveries_at_once_post_each_message_once(receiver, reader, tell, deliver):
    ids = [
        number for n in range(8) for number in tell(*(["x"] * 20), severity=Severity.ERROR if n % 2 else Severity.WARN)
    ]
    barrier = threading.Barrier(5)
    done = []

    def run():
        barrier.wait(timeout=30)
        done.append(deliver())

    threads = [threading.Thread(target=run) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(done) == 5
    while deliver().messages:
        pass
    assert sorted(receiver.event_ids) == ids
    assert delivered(reader) == ids


def test_a_crash_between_post_and_mark_repeats_the_same_message_under_the_same_key(
    database_url, receiver, reader, tell, deliver
):
    ids = tell("a", "b")
    program = (
        "import logging, sys\n"
        "from recon_pipeline.alerting.delivery import deliver_events\n"
        "from recon_pipeline.alerting.destination import AlertSettings\n"
        "deliver_events(sys.argv[1], AlertSettings(webhook_url=sys.argv[2], webhook_format='json'), log=logging.getLogger())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, database_url, receiver.url]) as child:
        # The webhook has the message, and the sender never hears that it has.
        receiver.before_answer = lambda: child.send_signal(signal.SIGKILL)
        assert child.wait(timeout=60) == -signal.SIGKILL
    receiver.before_answer = lambda: None
    assert delivered(reader) == []
    later = tell("c")
    _until_unlocked(reader)
    assert deliver().messages == 2
    first, again, other = receiver.received
    assert (first.key, first.event_ids, first.body) == (again.key, again.event_ids, again.body)
    assert (again.event_ids, other.event_ids) == (ids, later)
    assert again.body["idempotency_key"] == again.key


def _until_unlocked(reader):
    """The server notices a moment later that a killed client is gone."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            with reader.transaction():
                reader.execute("SELECT FROM recon.events FOR UPDATE NOWAIT")
        except psycopg.errors.LockNotAvailable:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("the locks of a killed delivery stay")


# -- secrets


def test_no_secret_is_posted_logged_or_stored(database_url, receiver, reader, tell, caplog):
    key, token = "AKEXAMPLE0123", PATH.rsplit("/", 1)[1]
    with_password = database_url.replace("postgres@", "postgres:hunter2hunter2@")
    tell(
        f"can't connect to {with_password} with {key}",
        f"posted to {receiver.url}",
        details={"url": with_password, "headers": {"secret_key": "plain"}, "tried": [key], "n": 1},
    )
    receiver.answer(401, f"no {token} for {key}")
    settings = AlertSettings(webhook_url=receiver.url, webhook_format="json")
    assert token not in repr(settings)

    def run():
        return deliver_events(with_password, settings, log=LOG, secrets=[key])

    with caplog.at_level(logging.DEBUG):
        refused = run()
        make_due(reader)
        run()
    stored = [row["last_error"] for row in reader.execute("SELECT last_error FROM recon.events")]
    told = [str(request.body) for request in receiver.received]
    everything = "\n".join([refused.error, caplog.text, *map(str, stored), *told])
    for secret in (key, token, PATH, "hunter2hunter2", "plain"):
        assert secret not in everything
    assert "can't connect to *** with ***" in everything
    assert receiver.received[0].path == PATH
    assert receiver.received[1].body["events"][0]["details"]["n"] == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/services/TheSecretPath",
        "TheSecretPath-no-url",
        "http://[TheSecretPath",
        "ftp://x/TheSecretPath",
    ],
)
def test_an_address_that_cannot_be_reached_is_not_quoted(database_url, tell, caplog, url):
    tell("a")
    with caplog.at_level(logging.DEBUG):
        done = deliver_events(database_url, AlertSettings(webhook_url=url), log=LOG)
    assert "can't be reached" in done.error
    assert (done.failed, done.waiting) == (1, 1)
    assert "TheSecretPath" not in done.error + caplog.text
