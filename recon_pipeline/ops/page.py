"""The order status page: one document that a person opens at night, on a phone, and believes.

What belongs here: which sentence stands where. What does not: what is stale and in which order it is shown (``board``), markup
(``templates``), HTTP (``app``).

It says what is known and how old that is. What nobody can know is said, too: a database that can't be read, a sync that is
behind, orders that no sync has looked at. The script counts ages on and loads the page again every few seconds; without it the
page is whole. Style and script are in the document, so nothing is loaded from anywhere; whoever serves it names their hashes in
the Content-Security-Policy.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.ops import wording
from recon_pipeline.ops.board import Cases, Orders, Query, cases_of, is_known, orders_of, profile_names
from recon_pipeline.ops.facts import Banner, Fact, StreamLine, facts_of, health_banner, paused_rows, stream_lines
from recon_pipeline.ops.snapshot import Row, Snapshot

_TEMPLATES: Final = files("recon_pipeline.ops") / "templates"
STYLE: Final = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
"""The text of the one ``<style>``, byte for byte"""
SCRIPT: Final = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
"""The text of the one ``<script>``, byte for byte"""
PARAMETERS: Final = ("profile", "status", "live", "all")
"""What an address may ask for: a profile, a status of the ledger, ``live=1`` and ``all=1``"""

FRESH: Final = dt.timedelta(seconds=60)
"""A snapshot that is older is no longer how things are, and the page says so."""
ROWS_SHOWN: Final = 20
"""Of paused profiles and of streams."""
_ICON: Final = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><circle cx='8' cy='8' r='7' fill='{}'/></svg>"
)
_COLOURS: Final = {"ok": "#2f9e54", "warn": "#e0a800", "bad": "#d1382a"}


@dataclass(frozen=True)
class _Shown:
    """What the template gets of a snapshot."""

    banners: tuple[Banner, ...]
    facts: tuple[Fact, ...] = ()
    orders: Orders | None = None
    cases: Cases | None = None
    pauses: tuple[Row, ...] = ()
    streams: tuple[StreamLine, ...] = ()


def render(
    snapshot: Snapshot | None,
    query: Mapping[str, str],
    *,
    now: dt.datetime,
    policy: OrderStatusPolicy,
    late_minutes: int,
    dashboard_url: str,
    trouble: str,
) -> str:
    """Return the page as HTML. Any query is answered: what nobody knows shows nothing, and says so.

    :param snapshot: what is known; None: nothing could be read yet
    :param query: PARAMETERS; values may be any text
    :param now: the instant that ages are counted to
    :param late_minutes: after how many minutes without a cycle a profile is late
    :param dashboard_url: of the Dagster UI, for links; empty: none
    :param trouble: why the last reading failed, without secrets; empty: it did not
    """
    asked = Query.of(query)
    shown = (
        _Shown(banners=(_nothing_read(trouble),))
        if snapshot is None
        else _shown(snapshot, asked, now, policy, late_minutes, trouble)
    )
    tone = min((banner.tone for banner in shown.banners), key=("bad", "warn", "ok").index)
    more = {
        "pauses": shown.pauses[:ROWS_SHOWN],
        "more_pauses": max(0, len(shown.pauses) - ROWS_SHOWN),
        "streams": shown.streams[:ROWS_SHOWN],
        "more_streams": max(0, len(shown.streams) - ROWS_SHOWN),
    }
    sentences: dict[str, Any] = {}
    if snapshot is not None and shown.orders is not None and shown.cases is not None:
        sentences = {
            "profiles": profile_names(snapshot, asked, policy),
            "statuses": _with(shown.orders.statuses, asked.status),
            "orders_note": _orders_note(shown.orders, asked, policy),
            "orders_empty": _orders_empty(snapshot, asked, policy),
            "cases_note": _cases_note(shown.cases, asked),
            "cases_empty": _cases_empty(snapshot, asked, policy),
        }
    return _template().render(
        snapshot=snapshot,
        query=asked,
        now=now,
        banners=shown.banners,
        facts=shown.facts,
        orders=shown.orders,
        cases=shown.cases,
        title=_title(shown),
        summary=". ".join(banner.title for banner in shown.banners),
        icon=f"data:image/svg+xml,{quote(_ICON.format(_COLOURS[tone]), safe='')}",
        style=Markup(STYLE),  # noqa: S704  files of this package
        script=Markup(SCRIPT),  # noqa: S704
        alert_after=wording.threshold(policy.alert_after_ms),
        dashboard_url=dashboard_url if wording.partition_url(dashboard_url, "", "p") else "",
        since=lambda instant: wording.length((now - instant).total_seconds()),
        about=lambda instant: wording.about((now - instant).total_seconds()),
        clock=partial(wording.clock, now=now),
        partition_url=partial(wording.partition_url, dashboard_url),
        stage_url=partial(wording.stage_url, dashboard_url),
        address=partial(_address, asked),
        **more,
        **sentences,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(str(_TEMPLATES)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        ms=wording.ms,
        iso=wording.iso,
        money=wording.money,
        counted=wording.counted,
        sentence=wording.sentence,
        stage=wording.stage,
        root_cause=wording.root_cause,
        outcome=wording.outcome,
        said=wording.said,
        stale_asset=wording.STALE_ASSET,
    )
    return environment.get_template("page.html")


def _shown(
    snapshot: Snapshot, asked: Query, now: dt.datetime, policy: OrderStatusPolicy, late_minutes: int, trouble: str
) -> _Shown:
    late = dt.timedelta(minutes=late_minutes)
    orders = orders_of(snapshot, asked, policy)
    cases = cases_of(snapshot, asked, policy, late)
    banners = [
        banner
        for banner in (
            _database_banner(snapshot, now, trouble),
            health_banner(snapshot, now, late),
            _stale_banner(orders, policy),
        )
        if banner is not None
    ]
    if not orders.stale:
        banners.append(_calm_banner(snapshot, orders, policy, trouble=bool(banners)))
    return _Shown(
        banners=tuple(banners),
        facts=facts_of(snapshot, orders, cases, policy, now, late),
        orders=orders,
        cases=cases,
        pauses=paused_rows(snapshot),
        streams=stream_lines(snapshot, now),
    )


def _nothing_read(trouble: str) -> Banner:
    if not trouble:
        return Banner("warn", "…", "The first reading is under way", "This page shows itself as soon as it is done.")
    return Banner("bad", "✕", "The database can't be read", "Nothing is known yet.", points=(wording.clean(trouble),))


def _database_banner(snapshot: Snapshot, now: dt.datetime, trouble: str) -> Banner | None:
    old = now - snapshot.taken_at > FRESH
    if not trouble and not old:
        return None
    title = "The database can't be read" if trouble else "What is shown here is old"
    return Banner(
        "bad",
        "✕",
        title,
        f"What follows was so at {wording.clock(snapshot.taken_at, now)},",
        before_since="",
        since=snapshot.taken_at,
        points=(wording.clean(trouble),) if trouble else (),
    )


def _stale_banner(orders: Orders, policy: OrderStatusPolicy) -> Banner | None:
    if not orders.stale:
        return None
    where = f" in {wording.counted(orders.profiles, 'profile')}" if orders.profiles > 1 else ""
    text = "They may still execute, and the exchange has not confirmed them lately."
    if orders.stale == 1:
        text = "It may still execute, and the exchange has not confirmed it lately."
    if orders.persistent:
        text += f" {orders.persistent:,} for more than {wording.threshold(policy.alert_after_ms)}."
    return Banner(
        "warn",
        "⚠",
        f"{'At least ' if orders.more else ''}{wording.counted(orders.stale, 'stale order')}{where}",
        text,
        before_since="The oldest was placed" if orders.oldest is not None and orders.stale > 1 else "Placed",
        since=orders.oldest,
    )


def _calm_banner(snapshot: Snapshot, orders: Orders, policy: OrderStatusPolicy, *, trouble: bool) -> Banner:
    threshold = wording.threshold(policy.stale_ms)
    if snapshot.sync is None and not snapshot.order_checks:
        text = f"No order that may still execute is older than {threshold}."
    elif orders.waiting:
        many = "order waits rightly: the exchange holds it" if orders.waiting == 1 else ""
        many = many or "orders wait rightly: the exchange holds them"
        text = f"{orders.waiting:,} older {many} as live."
    else:
        text = f"Every order that may still execute is younger than {threshold}."
    return Banner("warn" if trouble else "ok", "✓", "No order is stale", text)


def _title(shown: _Shown) -> str:
    if shown.orders is None:
        return "Order status: nothing read"
    if shown.banners[0].tone == "bad":
        return f"✕ {shown.banners[0].title}: order status"
    return f"⚠ {wording.counted(shown.orders.stale, 'stale order')}" if shown.orders.stale else "Order status"


def _orders_note(orders: Orders, asked: Query, policy: OrderStatusPolicy) -> str:
    if asked.narrows:
        total = orders.stale + (orders.waiting if asked.live else 0)
        of = f"{len(orders.lines):,} shown, " if len(orders.lines) < orders.matching else ""
        return f"{of}{orders.matching:,} of {total:,}, {_filter(asked)}"
    rule = f"placed more than {wording.threshold(policy.stale_ms)} ago and not confirmed by the exchange"
    shown = f"{len(orders.lines):,} of {orders.matching:,}, " if len(orders.lines) < orders.matching else ""
    return f"{shown}{rule}; the oldest first" if not asked.live else f"{shown}stale ones first, then the oldest"


def _orders_empty(snapshot: Snapshot, asked: Query, policy: OrderStatusPolicy) -> str:
    if asked.profile and not is_known(snapshot, asked.profile, policy):
        return f"There is no profile “{asked.profile}”."
    if asked.narrows:
        return f"No {'order' if asked.live else 'stale order'} {_filter(asked)}."
    if asked.live:
        return f"No order that may still execute is older than {wording.threshold(policy.stale_ms)}."
    return "No stale orders."


def _cases_note(cases: Cases, asked: Query) -> str:
    if not cases.count:
        return ""
    only = f"in {asked.profile}; " if asked.profile else ""
    some = f"{len(cases.lines):,} of {cases.matching:,} shown; " if len(cases.lines) < cases.matching else ""
    return f"{only}{some}{wording.money(cases.matching_usd)} at risk, most money first" if cases.matching else only[:-2]


def _cases_empty(snapshot: Snapshot, asked: Query, policy: OrderStatusPolicy) -> str:
    if asked.profile and not is_known(snapshot, asked.profile, policy):
        return f"There is no profile “{asked.profile}”."
    return f"Nothing in {asked.profile} waits for a person." if asked.profile else "Nothing waits for a person."


def _with(statuses: tuple[str, ...], asked: str) -> tuple[str, ...]:
    """The statuses to choose from, the one that was asked for among them however it is spelled."""
    known = not asked or asked.lower() in {status.lower() for status in statuses}
    return statuses if known else tuple(sorted({*statuses, asked}))


def _filter(asked: Query) -> str:
    parts = [f"in {asked.profile}" if asked.profile else "", f"with status {asked.status}" if asked.status else ""]
    return " ".join(part for part in parts if part)


def _address(asked: Query, **changes: object) -> str:
    """The address of this page with other parameters, relative to wherever it is served."""
    now: dict[str, object] = {
        "profile": asked.profile,
        "status": asked.status,
        "live": int(asked.live) or "",
        "all": int(asked.everything) or "",
        **changes,
    }
    return f"?{urlencode({name: value for name, value in now.items() if value})}"
