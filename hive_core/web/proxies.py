"""Who a request is from, and what the browser called us, where a reverse proxy brings it (SECURITY 3).

Anybody can write the headers that proxies write. They count only on a connection from a proxy that the
operator named, or on the socket that was made for one; and of the two families only the one that this
proxy is said to set, because a proxy hands the other on as the client wrote it.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from starlette.datastructures import Headers
from starlette.types import Scope

from hive_core.web.refusals import WebRefusal

Family = Literal["x-forwarded", "forwarded"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HOPS_MAX: Final = 32
BY_SOCKET: Final = "by_socket"  # in a request's state: it came by the socket that is the proxy's
_SCHEMES: Final = frozenset({"http", "https"})

# RFC 7239, section 4.
_PAIR: Final = re.compile(r'\s*([A-Za-z]+)=(?:([^\s";,=]+)|"((?:[^"\\]|\\.)*)")\s*(;|,|\Z)')
_ESCAPED: Final = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Caller:
    """Where a request comes from. `host` and `scheme` only where a trusted proxy tells them."""

    address: str
    host: str | None = None
    scheme: str | None = None


@dataclass(frozen=True)
class _Told:
    """What the headers of one family say. `hops`: the nearest is the last."""

    hops: list[str]
    host: str | None
    scheme: str | None


class Proxies:
    """Which peers are proxies, and which headers they set."""

    def __init__(self, trusted: Iterable[str] = (), family: Family = "x-forwarded") -> None:
        self._trusted = [ipaddress.ip_network(network) for network in trusted]
        self._read = _x_forwarded if family == "x-forwarded" else _forwarded

    def caller(self, scope: Scope, headers: Headers) -> Caller:
        """Who sent this request; raises `WebRefusal` 400 if a trusted proxy contradicts itself."""
        peer = scope["client"][0] if scope.get("client") else None
        by_socket = scope.get("state", {}).get(BY_SOCKET, False)
        if not by_socket and not self._trusts(_address(peer or "")):
            return Caller(peer or "unknown")
        told = self._read(headers)
        if told.scheme is not None and told.scheme not in _SCHEMES:
            raise _unclear("scheme")
        return Caller(self._nearest_stranger(told.hops, peer or "the proxy"), told.host, told.scheme)

    def _nearest_stranger(self, hops: list[str], peer: str) -> str:
        """The last address that a proxy of ours told: what stands before it, a stranger may have written."""
        found = peer
        for hop in reversed(hops[-HOPS_MAX:]):
            address = _address(hop)
            if address is None:
                break
            found = str(address)
            if not self._trusts(address):
                break
        return found

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def _x_forwarded(headers: Headers) -> _Told:
    hops = ",".join(headers.getlist("x-forwarded-for")).split(",")
    return _Told(hops, _only(headers, "x-forwarded-host"), _only(headers, "x-forwarded-proto"))


def _only(headers: Headers, name: str) -> str | None:
    values = headers.getlist(name)
    if len(values) > 1 or any("," in value for value in values):
        raise _unclear(name)
    return values[0].strip().lower() or None if values else None


def _forwarded(headers: Headers) -> _Told:
    elements = _elements(",".join(headers.getlist("forwarded")))
    nearest = elements[-1] if elements else {}
    hops = [element.get("for", "") for element in elements]
    return _Told(hops, nearest.get("host"), nearest.get("proto"))


def _elements(text: str) -> list[Mapping[str, str]]:
    """The elements, the nearest last; raises where half a quote could swallow what a proxy added."""
    elements: list[Mapping[str, str]] = []
    element: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is None:
            raise _unclear("forwarded")
        name = match[1].lower()
        if name in element:
            raise _unclear("forwarded")
        element[name] = match[2] if match[3] is None else _ESCAPED.sub(r"\1", match[3])
        position = match.end()
        if match[4] != ";":
            elements.append({key: value.lower() for key, value in element.items()})
            element = {}
    return elements


def _address(text: str) -> Address | None:
    """`192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`; None for anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    if "%" in text:
        return None  # what follows it may be any text
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _unclear(what: str) -> WebRefusal:
    return WebRefusal(400, "bad_forwarding", f"the proxy's word on {what} is not clear")
