"""Posting a message to a webhook: one request with a time limit, and an answer as a value. Its URL is a secret.

What belongs here: HTTP. What does not: trying again (``delivery``) and the text (``messages``). No error text of the HTTP
library is ever passed on, for it quotes the URL.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import requests

from recon_pipeline.alerting.messages import Message
from recon_pipeline.alerting.redaction import Redactor

_MUCH_OF_AN_ANSWER: Final = 200
_MOST_PATIENCE: Final = 3_600.0
_ABOUT_THE_MESSAGE: Final = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
)
"""Answers that say nothing about what another message would meet."""


@dataclass(frozen=True)
class Posted:
    """The webhook took the message."""


@dataclass(frozen=True)
class Refused:
    """The webhook did not take the message, as far as is known."""

    error: str
    """why, without a secret"""
    concerns_all: bool
    """no other message would fare better now"""
    retry_after_seconds: float = 0.0
    """how long the webhook wants to be left alone"""


def post(url: str, message: Message, *, timeout_seconds: float, redact: Redactor) -> Posted | Refused:
    """Post the message. Follows no redirect: what it says is for this address alone."""
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Idempotency-Key": message.key,
        "X-Recon-Event-Ids": ",".join(map(str, message.event_ids)),
        "User-Agent": "recon-pipeline",
    }
    try:
        with (
            _silent_about_the_path(),
            requests.post(
                url, data=message.body, headers=headers, timeout=timeout_seconds, allow_redirects=False, stream=True
            ) as answer,
        ):
            if answer.ok and not answer.is_redirect:
                return Posted()
            return _refusal(answer, redact)
    except requests.Timeout:
        return Refused(f"no answer of {_host(url)} within {timeout_seconds:g} s", concerns_all=True)
    except (requests.RequestException, ValueError) as error:  # the type alone: the text quotes the URL
        return Refused(f"{_host(url)} can't be reached ({type(error).__name__})", concerns_all=True)


def _refusal(answer: requests.Response, redact: Redactor) -> Refused:
    words = " ".join(redact.text(_beginning(answer)).split())
    return Refused(
        f"the webhook answers {answer.status_code}{': ' + words if words else ''}",
        concerns_all=answer.status_code not in _ABOUT_THE_MESSAGE,
        retry_after_seconds=_seconds(answer.headers.get("Retry-After", "")),
    )


def _beginning(answer: requests.Response) -> str:
    try:
        return next(answer.iter_content(_MUCH_OF_AN_ANSWER), b"").decode("utf-8", "replace")
    except requests.RequestException:
        return ""  # the status alone says enough


def _seconds(text: str) -> float:
    return min(float(text), _MOST_PATIENCE) if text.isdigit() else 0.0


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "the webhook"
    except ValueError:
        return "the webhook"


@contextmanager
def _silent_about_the_path() -> Iterator[None]:
    """Keep the library's own debug log, which shows every request's path, from doing so."""
    log = logging.getLogger("urllib3.connectionpool")
    log.addFilter(_no_requests)
    try:
        yield
    finally:
        log.removeFilter(_no_requests)


def _no_requests(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG
