"""Who may ask `recon serve`: addresses, tokens, Host headers."""

from __future__ import annotations

import base64
from http import HTTPStatus

import pytest
from starlette.datastructures import Headers

from recon_pipeline.ops.access import Access, AccessError, check_binding, host_name, page_policy
from recon_pipeline.settings import read_settings

TOKEN = "s3cret-töken"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def refused(access: Access, *headers: tuple[str, str]) -> HTTPStatus | None:
    raw = [(name.encode(), value.encode("utf-8")) for name, value in headers]
    found = access.refusal(Headers(raw=raw))
    return None if found is None else found[0]


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.7", "10.0.0.1", "example.com", "", "127.0.0.1.nip.io", "2130706433"]
)
def test_an_address_that_others_reach_is_refused_without_a_token_and_taken_with_one(host: str) -> None:
    with pytest.raises(AccessError, match="set RECON_SERVE_TOKEN, or bind to"):
        check_binding(host, "")
    check_binding(host, TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"])
def test_an_address_of_this_machine_alone_needs_no_token(host: str) -> None:
    check_binding(host, "")


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {TOKEN}",
        f"bearer  {TOKEN} ",
        basic("", TOKEN),
        basic("prometheus", TOKEN),
        basic("", TOKEN).replace("Basic", "BASIC"),
    ],
)
def test_whoever_knows_the_token_may_ask_from_anywhere(authorization: str) -> None:
    assert refused(Access(TOKEN), ("authorization", authorization), ("host", "status.example.com")) is None


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        TOKEN,
        f"Token {TOKEN}",
        basic(TOKEN, ""),
        basic("", "wrong"),
        "Basic " + base64.b64encode(TOKEN.encode()).decode(),
        "Basic !!!!",
        "Basic äöü",
        "Basic",
    ],
)
def test_whoever_does_not_know_the_token_may_not_even_from_this_machine(authorization: str) -> None:
    assert refused(Access(TOKEN), ("authorization", authorization), ("host", "localhost")) == HTTPStatus.UNAUTHORIZED


def test_no_token_or_two_is_no_token() -> None:
    good = ("authorization", f"Bearer {TOKEN}")
    assert refused(Access(TOKEN), ("host", "localhost")) == HTTPStatus.UNAUTHORIZED
    assert refused(Access(TOKEN), good, good) == HTTPStatus.UNAUTHORIZED
    assert refused(Access(TOKEN), ("authorization", "Bearer wrong"), good) == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080", "localhost.", "ops.example.com:443"]
)
def test_without_a_token_a_request_has_to_name_this_machine_or_an_allowed_name(host: str) -> None:
    assert refused(Access(hosts=frozenset({"ops.example.com"})), ("host", host)) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:8080",
        "",
        "[::1",
        "::1",
        "10.0.0.1",
        "localhost@evil.example",
    ],
)
def test_a_name_that_a_stranger_let_point_here_is_refused(host: str) -> None:
    assert refused(Access(), ("host", host)) == HTTPStatus.MISDIRECTED_REQUEST


def test_a_request_with_no_host_or_two_is_refused() -> None:
    assert refused(Access()) == HTTPStatus.MISDIRECTED_REQUEST
    assert refused(Access(), ("host", "localhost"), ("host", "localhost")) == HTTPStatus.MISDIRECTED_REQUEST


def test_the_name_of_a_host_header_is_read_without_its_port() -> None:
    assert [host_name(text) for text in ("A.b:1", "[::1]:2", "[::1]", " x ", ":80", "[oops")] == [
        "a.b",
        "::1",
        "::1",
        "x",
        "",
        "",
    ]


def test_the_token_is_in_no_text_about_the_settings() -> None:
    settings = read_settings({"RECON_SERVE_TOKEN": TOKEN})
    assert settings.serve.token == TOKEN
    assert TOKEN not in repr(settings) + repr(settings.serve) + repr(Access(TOKEN))


def test_a_page_runs_its_own_script_and_style_and_no_other() -> None:
    policy = page_policy(style="body{}", script="let a = 1")
    assert "style-src 'sha256-fJgEClQWV1hGkK4qHMO0KotTsVnMYMXTq7/suurGyUo='" in policy  # as openssl computes it
    assert "script-src 'sha256-LAfYd7pbFUgwfQu8b4q135PeTG2z+/coPEUYCd74eCQ='" in policy
    assert "unsafe-inline" not in policy
    assert policy.startswith("default-src 'none'; ")
