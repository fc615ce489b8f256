"""How the page says things: lengths of time, money, instants, and the words of the pipeline as a person would say them.

What belongs here: text. What does not: what is shown and in which order (``board``), and markup (``templates``).
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Final
from urllib.parse import quote, urlsplit

from recon_pipeline.domain.corrections import Stage
from recon_pipeline.domain.order_answers import CheckOutcome
from recon_pipeline.domain.root_causes import RootCause

_CENT: Final = Decimal("0.01")
_UNITS: Final = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))
_LONGEST: Final = 200
"""Characters of a word that somebody else chose: an id of a thousand characters is no id."""

OUTCOMES: Final[dict[str, str]] = {
    CheckOutcome.NOT_CHECKED: "Not asked about yet. The next sync asks.",
    CheckOutcome.LIVE: "The exchange holds it as live.",
    CheckOutcome.IN_LINE: "It is over, and the row says so.",
    CheckOutcome.DIFFERS: "The exchange says otherwise; the sync is a dry run and does not write it.",
    CheckOutcome.UPDATED: "Corrected to what the exchange says.",
    CheckOutcome.MISSING: "The exchange does not know it. Once old enough it is marked unknown.",
    CheckOutcome.MARKED_UNKNOWN: "The exchange does not know it. It blocks its trade until a person decides.",
    CheckOutcome.HELD: "Found, but something speaks against writing it.",
    CheckOutcome.OUTDATED: "The answer says less than the ledger does; the ledger stands.",
    CheckOutcome.POSTPONED: "Found, not written yet: its row changed meanwhile. The next sync decides again.",
    CheckOutcome.FAILED: "No answer that counts. Asked again, later each time.",
}
"""What the last check of an order came to."""

ASSETS: Final[dict[str, str]] = {
    Stage.ORDER_PARITY.value: "order_parity",
    Stage.ORDER_COVERAGE.value: "order_coverage",
    Stage.EXIT_BACKFILL.value: "proposed_backfill_rows",
    Stage.SUB_TAG_REPAIR.value: "sub_tag_repair",
    Stage.POSITION_PARITY.value: "position_parity",
    Stage.ORDER_STATUS.value: "order_status_updates",
}
"""The asset that shows what a stage found; of every other stage it is the report."""
REPORT_ASSET: Final = "reconciliation_report"
STALE_ASSET: Final = "stale_orders"

_STAGES: Final[dict[str, str]] = {
    Stage.READING.value: "Ledger data",
    Stage.EXIT_BACKFILL.value: "Exit backfill",
    Stage.SUB_TAG_REPAIR.value: "Sub-tags",
}
_ROOT_CAUSES: Final[dict[str, str]] = {
    RootCause.MISSED_EXECUTION: "an execution that the ledger has not booked",
    RootCause.MANUAL_CLOSE: "closed by hand",
    RootCause.FOREIGN_PROFILE: "traded by somebody else",
    RootCause.CRYPTO_FEE: "the exchange's fee, taken in the coin",
    RootCause.SPLIT: "a split or another corporate action",
    RootCause.OUTSIDE_LOOKBACK: "older than the look-back",
}


def length(seconds: float) -> str:
    """A length of time in its two largest units: ``42 s``, ``6 min 12 s``, ``2 h 14 min``, ``3 d 4 h``; so says the script."""
    whole = max(0, int(seconds))
    for size, unit, part, of_part in _UNITS:
        if whole >= size:
            rest = whole % size // part
            counts_on = rest or of_part == "s"
            return f"{whole // size} {unit} {rest} {of_part}" if counts_on else f"{whole // size} {unit}"
    return f"{whole} s"


def about(seconds: float) -> str:
    """A length of time in its largest unit, of hours and days in two: ``42 s``, ``6 min``, ``2 h 14 min``; so says the script."""
    text = length(seconds)
    return text.partition(" min ")[0] + " min" if text.endswith(" s") and " min " in text else text


def threshold(ms: int) -> str:
    """A threshold as its setting says it, on one line: ``5 min``, ``1 h``, ``24 h``; other lengths in two units."""
    if ms % 3_600_000 == 0 and ms:
        return f"{ms // 3_600_000}\u00a0h"
    return f"{ms // 60_000}\u00a0min" if ms % 60_000 == 0 else length(ms / 1000)


def clock(instant: dt.datetime, now: dt.datetime) -> str:
    """An instant in UTC, with its day where that is not today: ``03:12:05 UTC``, ``20 Nov 03:12 UTC``."""
    moment, today = instant.astimezone(dt.UTC), now.astimezone(dt.UTC)
    if moment.date() == today.date():
        return moment.strftime("%H:%M:%S UTC")
    year = "" if moment.year == today.year else f" {moment.year}"
    return f"{moment.day} {moment.strftime('%b')}{year} {moment.strftime('%H:%M')} UTC"


def iso(instant: dt.datetime) -> str:
    """An instant as machines read it."""
    return instant.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def ms(instant: dt.datetime) -> int:
    """Milliseconds since 1970, for the script."""
    return int(instant.timestamp() * 1000)


def money(usd: Decimal | None) -> str:
    """Money in USD, to the cent: ``$12,340.50``; ``unknown`` where no price is known; what is less than a cent says so."""
    if usd is None:
        return "unknown"
    if usd and abs(usd) < _CENT:
        return "under $0.01"
    sign = "-" if usd < 0 else ""
    return f"{sign}${abs(usd).quantize(_CENT):,}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 order``, ``3 orders``, ``1,200 orders``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def humanised(word: str) -> str:
    """A word of the pipeline as text: ``exchange_not_flat:3`` becomes ``exchange not flat: 3``."""
    name, colon, number = word.partition(":")
    return f"{name.replace('_', ' ')}{': ' if colon else ''}{number}".strip()


def sentence(word: str) -> str:
    """A word of the pipeline as it begins a line: ``exchange_not_flat`` becomes ``Exchange not flat``."""
    text = humanised(word)
    return text[:1].upper() + text[1:]


def stage(word: str) -> str:
    """A stage as people call it."""
    return _STAGES.get(word) or sentence(word)


def root_cause(word: str) -> str:
    """A root cause as people say it; empty where the facts say nothing."""
    return _ROOT_CAUSES.get(word, humanised(word))


def outcome(word: str) -> str:
    """What the last check of an order came to, in a sentence."""
    return OUTCOMES.get(word) or f"{sentence(word)}."


def clean(raw: object) -> str:
    """Text of somebody else's, as far as it can be shown: no control characters, no half characters, not endless."""
    text = "" if raw is None else str(raw)
    if len(text) <= _LONGEST and text.isascii() and text.isprintable():
        return text
    shown = "".join(c for c in text if c.isprintable() or c == "\n").encode("utf-8", "ignore").decode("utf-8")
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def partition_url(dashboard_url: str, asset: str, profile_id: str) -> str:
    """The profile's partition of an asset in the Dagster UI; empty where the UI has no address that a browser may follow."""
    if not profile_id or urlsplit(dashboard_url).scheme not in {"http", "https"}:
        return ""
    base = dashboard_url.rstrip("/")
    return f"{base}/assets/{asset}?view=partitions&partition={quote(profile_id, safe='')}"


def stage_url(dashboard_url: str, stage_word: str, profile_id: str) -> str:
    """Where the Dagster UI shows what a stage found in a profile."""
    return partition_url(dashboard_url, ASSETS.get(stage_word, REPORT_ASSET), profile_id)


def said(detail: str) -> str:
    """Why, for a person: a sentence as it is, a single word of the pipeline as text."""
    return detail if " " in detail else f"{sentence(detail)}."
