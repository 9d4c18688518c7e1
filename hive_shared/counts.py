"""Numbers as people write them: `500k`, `5M`, `1.5G`, in powers of 1000."""

import re
from typing import Final

_COUNT: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([kKmMgG]?)")
_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def parse_count(text: str) -> int:
    """Raises `ValueError` for what is no such number, or has a part of one left over."""
    match = _COUNT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:40]!r} is no number such as 200, 500k or 1.5M")
    value = float(match[1]) * _UNITS[match[2].lower()]
    if value != int(value):
        raise ValueError(f"{text[:40]!r} is no whole number")
    return int(value)
