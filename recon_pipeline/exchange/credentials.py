"""The keys of one exchange account, as a value.

What belongs here: the value. What does not: where it comes from; only the settings read the environment.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AccountCredentials:
    """How to reach one account. ``account_id`` is the pipeline's own name for it, as in the table of profiles."""

    account_id: str
    key_id: str
    secret_key: str = field(repr=False)
    base_url: str

    def __post_init__(self) -> None:
        """Refuse what can't work, without repeating the secret."""
        for name in ("account_id", "key_id", "secret_key", "base_url"):
            value: str = getattr(self, name)
            if not value or value != value.strip():
                raise ValueError(f"{name} of account {self.account_id!r} is empty or has blanks around it")
        if not self.base_url.startswith(("https://", "http://")):
            raise ValueError(f"base_url of account {self.account_id!r} does not start with https:// or http://")

    def redact(self, text: str) -> str:
        """Return the text without the key id and the secret, should an answer repeat them."""
        return text.replace(self.secret_key, "***").replace(self.key_id, "***")
