"""What a message says: events of one type in one message, in Slack's format or as plain JSON.

What belongs here: grouping and wording. What does not: when it is posted (``delivery``) and how (``webhook``). Rows are events as
``recon.events`` has them, oldest first.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from recon_pipeline.alerting.redaction import Redactor

EVENTS_PER_MESSAGE: Final = 100
_SHOWN: Final = 10
_LONGEST_LINE: Final = 600
_SEVERITIES: Final = ("INFO", "WARN", "ERROR")

EventRow = Mapping[str, Any]


@dataclass(frozen=True)
class Message:
    """One request to the webhook."""

    key: str
    """the same in every attempt: what a receiver recognises a repetition by"""
    event_ids: tuple[int, ...]
    body: bytes
    """JSON, UTF-8, without secrets"""


def is_at_least(severity: str, least: str) -> bool:
    """Return whether the severity is at least the other one. One that nobody knows is the highest."""
    return _rank(severity) >= _rank(least)


def grouped(rows: Iterable[EventRow]) -> list[list[EventRow]]:
    """Return the events by type and severity, at most ``EVENTS_PER_MESSAGE`` in a group, in the order of their first."""
    groups: dict[tuple[str, str], list[list[EventRow]]] = {}
    for row in rows:
        of_type = groups.setdefault((str(row["type"]), str(row["severity"])), [[]])
        if len(of_type[-1]) == EVENTS_PER_MESSAGE:
            of_type.append([])
        of_type[-1].append(row)
    return sorted((group for of_type in groups.values() for group in of_type), key=lambda group: int(group[0]["id"]))


def log_line(row: EventRow, redact: Redactor) -> str:
    """Return an event as one line of a log."""
    where = " ".join(f"{name}={row[name]}" for name in ("profile_id", "account_id", "run_id") if row[name])
    return _one_line(redact.text(f"event {row['id']} {row['type']} {where}: {row['message']}"))


def message_of(
    rows: Sequence[EventRow], *, message_id: int, form: str, redact: Redactor, dashboard_url: str = ""
) -> Message:
    """Return the message that tells the events.

    :param form: slack, or json
    :param dashboard_url: of the Dagster UI, for links to runs; empty: none
    """
    key = f"recon-events-{message_id}"
    ids = tuple(int(row["id"]) for row in rows)
    if form == "slack":
        body: dict[str, object] = {"text": _slack_text(rows, key, redact, dashboard_url)}
    else:
        body = {
            "idempotency_key": key,
            "type": rows[0]["type"],
            "severity": rows[0]["severity"],
            "count": len(rows),
            "event_ids": list(ids),
            "events": [_plain(row, redact, dashboard_url) for row in rows],
        }
    return Message(key, ids, json.dumps(body, ensure_ascii=False, default=_json_value).encode())


def _slack_text(rows: Sequence[EventRow], key: str, redact: Redactor, dashboard_url: str) -> str:
    first = rows[0]
    many = f" ({len(rows)} events)" if len(rows) > 1 else ""
    lines = [f"*{_escaped(str(first['severity']))}* {_escaped(str(first['type']))}{many}"]
    for row in rows[:_SHOWN]:
        said = _escaped(_one_line(redact.text(str(row["message"]))))
        at = row["created_at"].astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
        where = f" [{_escaped(redact.text(str(row['profile_id'])))}]" if row["profile_id"] else ""
        link = f" <{dashboard_url}/runs/{row['run_id']}|run>" if dashboard_url and _is_run(row["run_id"]) else ""
        lines.append(f"• {at}Z{where} {said}{link}")
    if len(rows) > _SHOWN:
        lines.append(f"• and {len(rows) - _SHOWN} more in recon.events, ids {rows[_SHOWN]['id']} to {rows[-1]['id']}")
    lines.append(f"_{key}_")
    return "\n".join(lines)


def _plain(row: EventRow, redact: Redactor, dashboard_url: str) -> dict[str, object]:
    told = {
        name: redact.value(row[name])
        for name in ("id", "type", "severity", "message", "profile_id", "user_id", "account_id")
    }
    told["run_id"] = row["run_id"]
    told["created_at"] = row["created_at"]
    told["details"] = redact.value(row["details"])
    if dashboard_url and _is_run(row["run_id"]):
        told["run_url"] = f"{dashboard_url}/runs/{row['run_id']}"
    return told


def _is_run(run_id: object) -> bool:
    """Return whether the text can be part of a link."""
    return isinstance(run_id, str) and bool(run_id) and run_id.replace("-", "").isalnum() and run_id.isascii()


def _rank(severity: str) -> int:
    return _SEVERITIES.index(severity) if severity in _SEVERITIES else len(_SEVERITIES)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"


def _escaped(text: str) -> str:
    """Return the text as Slack shows it literally: no link, no mention of a channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _json_value(value: object) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} can't be told")
