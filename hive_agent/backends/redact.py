"""Keep credentials out of events, logs and error texts (SECURITY 13)."""

import re
from collections.abc import Iterable, Mapping

REPLACEMENT = b"[redacted]"
SECRET_MIN_BYTES = 8  # anything shorter would blank out innocent text

_ANTHROPIC_TOKEN = re.compile(rb"sk-ant-[A-Za-z0-9_-]{8,}")
_SECRET_NAME = re.compile(r"(?:_KEY|_TOKEN|_SECRET|_PASSWORD)$")


class Redactor:
    """Replaces known secret values, and whatever looks like an Anthropic token."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret.encode() for secret in secrets if len(secret) >= SECRET_MIN_BYTES}
        self._known = sorted(known, key=len, reverse=True)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> "Redactor":
        """One that knows the values of all variables whose name says that they are secret."""
        return cls(value for name, value in environment.items() if _SECRET_NAME.search(name))

    def clean(self, data: bytes) -> bytes:
        for secret in self._known:
            data = data.replace(secret, REPLACEMENT)
        return _ANTHROPIC_TOKEN.sub(REPLACEMENT, data)

    def clean_text(self, text: str) -> str:
        return self.clean(text.encode("utf-8", "replace")).decode("utf-8", "replace")
