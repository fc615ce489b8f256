"""Taking secrets out of what is told: the ones that are known, and what looks like one.

What belongs here: texts and JSON values in, the same without secrets out. What does not: where the secrets come from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote, urlsplit

HIDDEN: Final = "***"
_LONG: Final = 6
"""A shorter secret is only hidden where it stands alone: elsewhere it would tear words apart."""
_KEY: Final = 12
_CREDENTIAL_WORDS: Final = r"(?:secret|password|passwd|token|api[_-]?key|key[_-]?id|authorization)"
_PATTERNS: Final = (
    (re.compile(r"(?<=://)[^/\s@]+@"), f"{HIDDEN}@"),
    (re.compile(r"(https?://hooks\.[a-z0-9.-]+)/\S+", re.IGNORECASE), rf"\1/{HIDDEN}"),
    (
        re.compile(rf"({_CREDENTIAL_WORDS}[\"']?\s*[=:]\s*)(?:bearer\s+|basic\s+)?[\"']?[^\s\"',;&]+", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
)
_NAMED: Final = re.compile(_CREDENTIAL_WORDS, re.IGNORECASE)


class Redactor:
    """Hides the given secrets, spelled as they are or as in a URL, and whatever is written like a credential."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {spelling for secret in secrets if secret.strip() for spelling in (secret, quote(secret, safe=""))}
        ordered = sorted(known, key=lambda secret: (-len(secret), secret))
        alternatives = [
            re.escape(secret) if len(secret) >= _LONG else rf"(?<!\w){re.escape(secret)}(?!\w)" for secret in ordered
        ]
        self._known = re.compile("|".join(alternatives)) if alternatives else None

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def value(self, value: object) -> object:
        """Return a JSON value without secrets; what stands under a name like ``secret_key`` is one."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(str(name)): HIDDEN
                if _NAMED.search(str(name)) and isinstance(inner, str)
                else self.value(inner)
                for name, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        return value


def secrets_of_url(url: str) -> list[str]:
    """Return what must not be told of a webhook's URL: all of it, its password, and the long parts that are its key.

    Short parts of a path (``services``, ``alerts``) are words, which would be missing everywhere.
    """
    if not url:
        return []
    try:
        parts = urlsplit(url)
        keys = [parts.path.strip("/"), parts.path.rsplit("/", 1)[-1], parts.query]
        password = parts.password
    except ValueError:
        return [url]
    return [url, *([password] if password else []), *(key for key in keys if len(key) >= _KEY)]
