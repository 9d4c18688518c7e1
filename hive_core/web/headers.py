"""The headers every reply carries, and the `Host` values that are answered (SECURITY 2 and 3)."""

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        # Where a browser knows it, a text that is given to `innerHTML` and the like is an error, not markup.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

# Nothing of this is used here. What a browser does not know, it passes over (with a word in its console).
_NOT_USED = (
    "accelerometer", "autoplay", "camera", "display-capture", "fullscreen", "geolocation", "gyroscope", "hid",
    "idle-detection", "magnetometer", "microphone", "midi", "payment", "publickey-credentials-get",
    "screen-wake-lock", "serial", "usb", "xr-spatial-tracking",
)  # fmt: skip

# Given to the HTTP server itself, so that its own 400 and 503 carry them too.
SECURITY_HEADERS: tuple[tuple[str, str], ...] = (
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("permissions-policy", ", ".join(f"{feature}=()" for feature in _NOT_USED)),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-frame-options", "DENY"),
)

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class HostRules:
    """Which `Host` values belong to one listener, and the origin that each stands for.

    A name that resolves here but is not listed is DNS rebinding until proven otherwise.
    """

    port: int
    origins: Mapping[str, str]
    base_paths: Mapping[str, str] = field(default_factory=dict)  # by origin, where it is not `/`

    @classmethod
    def of(cls, port: int, listen_address: str, allowed_hosts: Iterable[str] = ()) -> "HostRules":
        """The listen address, loopback, the machine's name, and what the operator allowed.

        An allowed host is a name (our port is meant), `name:port`, or the address of a reverse
        proxy such as `https://hive.example.org` or `https://example.org/hive/`.
        """
        names = ["localhost", "127.0.0.1", "[::1]", socket.gethostname(), url_host(listen_address)]
        origins: dict[str, str] = {}
        base_paths: dict[str, str] = {}
        for name in (*names, *allowed_hosts):
            entry, base_path = _split(name.strip())
            found = _origins_of(entry.lower(), port)
            origins.update(found)
            if base_path != "/":
                base_paths.update(dict.fromkeys(found.values(), base_path))
        return cls(port, origins, base_paths)

    def base_path_of(self, origin: str) -> str:
        """Where this hive begins on one of its origins; it ends in a slash."""
        return self.base_paths.get(origin, "/")

    def origin_of(self, host: str, local_address: str | None = None) -> str | None:
        """The origin behind a `Host` header, or None if it is not ours.

        `local_address` is where the connection came in: on a wildcard listener, the machine's own
        addresses are ours, and an address cannot be rebound.
        """
        host = host.lower()
        if host in self.origins:
            return self.origins[host]
        if local_address and _is_address(local_address):
            return _origins_of(url_host(local_address), self.port).get(host)
        return None


def url_host(address: str) -> str:
    """An address as it stands in a URL: IPv6 in brackets."""
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def _split(entry: str) -> tuple[str, str]:
    """Scheme, name and port of an entry, and the base path after them."""
    scheme, separator, rest = entry.rpartition("://")
    name, _, path = rest.partition("/")
    path = path.strip("/")
    return scheme + separator + name, f"/{path}/" if path else "/"


def _origins_of(entry: str, port: int) -> dict[str, str]:
    if not entry:
        return {}
    url = urlsplit(entry if "://" in entry else f"http://{entry}")
    name = url_host(url.hostname or "")
    given = url.port or (_DEFAULT_PORTS.get(url.scheme, port) if "://" in entry else port)
    if given == _DEFAULT_PORTS.get(url.scheme):
        origin = f"{url.scheme}://{name}"
        return {name: origin, f"{name}:{given}": origin}
    return {f"{name}:{given}": f"{url.scheme}://{name}:{given}"}


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
