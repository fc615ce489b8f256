"""What a message says, in Slack's format and as JSON, and what is taken out of it."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import pytest

from recon_pipeline.alerting.messages import message_of
from recon_pipeline.alerting.redaction import Redactor, secrets_of_url

AT = dt.datetime(2026, 11, 20, 12, 0, 1, 500_000, tzinfo=dt.UTC)


def row(number, message="it broke", **more):
    return {
        "id": number,
        "type": "SYSTEM_ERROR",
        "severity": "ERROR",
        "message": message,
        "profile_id": "p1",
        "user_id": None,
        "account_id": "a1",
        "run_id": "0b5a-11",
        "details": {"qty": Decimal("0.10")},
        "created_at": AT,
        **more,
    }


def slack(*rows, **more):
    made = message_of(rows, message_id=rows[0]["id"], form="slack", redact=Redactor(), **more)
    body = json.loads(made.body)
    assert list(body) == ["text"]
    return body["text"].split("\n")


def test_slack_shows_severity_type_time_profile_message_and_a_link_to_the_run():
    assert slack(row(7), dashboard_url="https://dagster.example") == [
        "*ERROR* SYSTEM_ERROR",
        "• 2026-11-20 12:00:01Z [p1] it broke <https://dagster.example/runs/0b5a-11|run>",
        "_recon-events-7_",
    ]


def test_slack_shows_the_first_of_many_events_and_where_the_others_are():
    lines = slack(*(row(number, profile_id=None, run_id=None) for number in range(1, 31)))
    assert lines[0] == "*ERROR* SYSTEM_ERROR (30 events)"
    assert len(lines) == 13
    assert lines[1] == "• 2026-11-20 12:00:01Z it broke"
    assert lines[-2] == "• and 20 more in recon.events, ids 11 to 30"


def test_slack_neither_links_nor_mentions_what_an_event_says():
    [_, line, _] = slack(
        row(1, "<!channel> & <https://x|y>\nsecond line", profile_id="<p>", run_id="a|b"), dashboard_url="u"
    )
    assert line.endswith("[&lt;p&gt;] &lt;!channel&gt; &amp; &lt;https://x|y&gt; second line")


def test_a_very_long_message_is_cut():
    [_, line, _] = slack(row(1, "x" * 5000))
    assert len(line) < 700
    assert line.endswith("x…")


def test_json_has_every_event_whole():
    made = message_of([row(7), row(9)], message_id=7, form="json", redact=Redactor(), dashboard_url="https://d")
    assert (made.key, made.event_ids) == ("recon-events-7", (7, 9))
    body = json.loads(made.body)
    assert {name: body[name] for name in ("idempotency_key", "type", "severity", "count", "event_ids")} == {
        "idempotency_key": "recon-events-7",
        "type": "SYSTEM_ERROR",
        "severity": "ERROR",
        "count": 2,
        "event_ids": [7, 9],
    }
    assert body["events"][0] == {
        "id": 7,
        "type": "SYSTEM_ERROR",
        "severity": "ERROR",
        "message": "it broke",
        "profile_id": "p1",
        "user_id": None,
        "account_id": "a1",
        "run_id": "0b5a-11",
        "created_at": "2026-11-20T12:00:01.500Z",
        "details": {"qty": "0.10"},
        "run_url": "https://d/runs/0b5a-11",
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("postgresql://u:pw@h/db is down", "postgresql://***@h/db is down"),
        ("see https://hooks.slack.com/services/T/B/x now", "see https://hooks.slack.com/*** now"),
        ('{"api_key": "abc", "n": 1}', '{"api_key": ***", "n": 1}'),
        ("Authorization: Bearer abc.def, next", "Authorization: ***, next"),
        ("password=hunter2 host=h", "password=*** host=h"),
        ("APCA-API-SECRET-KEY is wrong", "APCA-API-SECRET-KEY is wrong"),
    ],
)
def test_what_is_written_like_a_credential_is_hidden(text, told):
    assert Redactor().text(text) == told


def test_a_known_secret_is_hidden_as_it_is_and_as_a_url_spells_it():
    redact = Redactor(["p@ss word!", "ab", ""])
    assert redact.text("p@ss word! and p%40ss%20word%21, ab but cab") == "*** and ***, *** but cab"
    assert redact.value({"list": ["p@ss word!", 1, None], "token": "x", "tokens": 3}) == {
        "list": ["***", 1, None],
        "token": "***",
        "tokens": 3,
    }


def test_a_webhooks_path_query_and_password_are_secrets():
    assert secrets_of_url("https://u:pw@h/services/T0001/TheTokenOfIt?sig=0123456789") == [
        "https://u:pw@h/services/T0001/TheTokenOfIt?sig=0123456789",
        "pw",
        "services/T0001/TheTokenOfIt",
        "TheTokenOfIt",
        "sig=0123456789",
    ]
    assert secrets_of_url("https://h/alerts?v=1") == ["https://h/alerts?v=1"]
    assert secrets_of_url("") == []
    assert secrets_of_url("http://[broken") == ["http://[broken"]
