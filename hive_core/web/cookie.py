"""The cookie of a session: what it is called, where it goes, and how it is read and set (SECURITY 2).

Cookies know no ports, so the name holds the dashboard's: two hives on one host do not log each other
out. Over TLS a prefix makes the browser itself refuse one that was not set over TLS (RFC 6265bis, 4.1.3).
"""

from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response

_PREFIXES = ("", "__Host-", "__Secure-")
COOKIES_TRIED_MAX = 32  # another port, or a sibling domain, may have planted some beside ours


@dataclass(frozen=True)
class SessionCookie:
    """The session's cookie on one origin of the dashboard."""

    name: str
    path: str
    secure: bool

    @classmethod
    def of(cls, origin: str, base_path: str, port: int) -> "SessionCookie":
        """For an origin such as `https://hive.example.org`, under `base_path`, of the hive on `port`."""
        secure = origin.startswith("https:")
        prefix = ("__Host-" if base_path == "/" else "__Secure-") if secure else ""
        return cls(f"{prefix}hive_session_{port}", base_path, secure)

    def values(self, headers: Headers) -> list[str]:
        """Every value that the browser sent under this name."""
        return _sent(headers, frozenset({self.name}))

    def put(self, response: Response, value: str, max_age_seconds: int) -> None:
        """Have `response` set it; 0 seconds take it away."""
        response.set_cookie(
            self.name,
            value,
            max_age=max_age_seconds,
            path=self.path,
            secure=self.secure,
            httponly=True,
            samesite="strict",
        )


def under_any_name(headers: Headers, port: int) -> list[str]:
    """What may be the session's cookie of the hive on `port`, before it is known which origin was called."""
    return _sent(headers, frozenset(f"{prefix}hive_session_{port}" for prefix in _PREFIXES))


def _sent(headers: Headers, names: frozenset[str]) -> list[str]:
    pairs = (cookie_parser(part) for line in headers.getlist("cookie") for part in line.split(";"))
    found = [value for pair in pairs for name, value in pair.items() if name in names and value]
    return found[:COOKIES_TRIED_MAX]
