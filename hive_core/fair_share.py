"""A list that is too long, shortened so that nobody fills it alone."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def fair_share(entries: Sequence[T], owner: Callable[[T], str], most: int) -> list[T]:
    """At most `most`, in the order given: everybody's first before anybody's second, and so on."""
    if len(entries) <= most:
        return list(entries)
    seen: Counter[str] = Counter()
    turns: list[tuple[int, int]] = []  # how many of the same owner go before it, and its place
    for place, entry in enumerate(entries):
        name = owner(entry)
        turns.append((seen[name], place))
        seen[name] += 1
    return [entries[place] for place in sorted(place for _, place in sorted(turns)[:most])]
