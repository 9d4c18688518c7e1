"""Failed logins: how many are looked at in a minute, and how many are written down (SECURITY 5, 11).

Nobody is locked out by them: a good code is good whoever else guesses. What is limited is the work
that guessing makes, and how fast it lets the audit grow.
"""

import ipaddress
from collections import OrderedDict
from typing import Final

from hive_core.clock import Clock, time_ms

WINDOW_MS: Final = 60_000
PER_ADDRESS: Final = 10
OVERALL: Final = 60
ADDRESSES_MAX: Final = 1024
LISTED_PER_HOUR: Final = 200
HOUR_MS: Final = 3_600_000

_OVERALL: Final = "*"


class FailureLimit:
    """How many failures an address, and everybody together, may have in a minute. Bounded memory."""

    def __init__(self, clock: Clock = time_ms) -> None:
        self._clock = clock
        self._window = -1
        self._all = 0
        self._by_address: OrderedDict[str, int] = OrderedDict()
        self._told: set[str] = set()

    def exceeded(self, address: str) -> bool:
        """Whether failures from this address are not even looked at any more."""
        self._roll()
        return self._which(address) is not None

    def begins_series(self, address: str) -> bool:
        """Whether this failure over the limit is the first of its minute; asked once for each."""
        which = self._which(address)
        if which is None or which in self._told:
            return False
        self._told.add(which)
        return True

    def count(self, address: str) -> None:
        self._roll()
        group = group_of(address)
        self._all += 1
        self._by_address[group] = self._by_address.get(group, 0) + 1
        self._by_address.move_to_end(group)
        while len(self._by_address) > ADDRESSES_MAX:
            self._by_address.popitem(last=False)

    def _which(self, address: str) -> str | None:
        """Whose limit is exceeded: that of the address, of all, or none."""
        group = group_of(address)
        if self._by_address.get(group, 0) >= PER_ADDRESS:
            return group
        return _OVERALL if self._all >= OVERALL else None

    def _roll(self) -> None:
        window = self._clock() // WINDOW_MS
        if window != self._window:
            self._window = window
            self._all = 0
            self._by_address.clear()
            self._told.clear()


class ListedFailures:
    """How many failures may still be written down in this hour."""

    def __init__(self, clock: Clock = time_ms) -> None:
        self._clock = clock
        self._hour = -1
        self._listed = 0

    def note(self, detail: str) -> str | None:
        """`detail` as it is to be written down, or None; the last of an hour says that it is the last."""
        hour = self._clock() // HOUR_MS
        if hour != self._hour:
            self._hour, self._listed = hour, 0
        self._listed += 1
        if self._listed > LISTED_PER_HOUR:
            return None
        last = self._listed == LISTED_PER_HOUR
        return f"{detail}; further failures of this hour are not listed" if last else detail


def group_of(address: str) -> str:
    """Addresses that one machine has by the million count as one: loopback, and a network of IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.is_loopback:
        return "loopback"
    if found.version == 6:
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return address
