"""Credentials kept out of events, logs, the audit and error texts (SECURITY 13).

Two ways to know one: the value is known (it is in the environment under a name that says so), or it looks
like one: tokens with a telling prefix, what follows `Authorization:` or a name such as `api_key`, passwords
in addresses, private keys. Everything works on bytes, in text as well as in JSON, and takes a time in
proportion to what it reads: each rule is found by a plain search for a fixed word, and looks at a bounded
piece behind it.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

REPLACEMENT: Final = b"[redacted]"
SECRET_MIN_BYTES: Final = 8  # anything shorter would blank out innocent text
KEY_MAX_BYTES: Final = 16 * 1024  # of a private key, between its first and its last line
PLAIN_MAX_CHARACTERS: Final = 20
KEY_MAX_LINES: Final = 200

_SECRET_NAME = re.compile(r"(?:_KEY|_TOKEN|_SECRET|_PASSWORD)$")
_TOKEN_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")

Span = tuple[int, int]
Verdict = Callable[[bytes], bool]


def _digits(value: bytes) -> int:
    return len(value) - len(value.translate(None, b"0123456789"))


def _turns(value: bytes) -> int:
    return len(re.findall(rb"[a-z][A-Z]", value))


def _mixed(value: bytes) -> bool:
    return value != value.lower() and value != value.upper()


def _drawn(value: bytes) -> bool:
    """Whether it looks drawn at random, not written: by its digits, and by how its letters change case."""
    digits = _digits(value)
    if digits == len(value):
        return False
    return digits >= 4 or (_mixed(value) and (digits >= 2 or (digits == 1 and _turns(value) >= 4)))


def _opaque(value: bytes) -> bool:
    """Whether what follows `Bearer` or `Basic` is a value, not the next word of a sentence."""
    return _digits(value) > 0 or _turns(value) >= 2 or value.endswith(b"=")


def _any(_: bytes) -> bool:
    return True


@dataclass(frozen=True)
class _Rule:
    """What is a secret behind a fixed word: the group `secret` of `pattern`, or all that it matches."""

    word: bytes  # in small letters; a plain search for it comes first
    pattern: re.Pattern[bytes]
    holds: Verdict = _any
    begins: bool = True  # whether the word must be the beginning of a word

    def spans(self, data: bytes, lowered: bytes) -> Iterator[Span]:
        at = lowered.find(self.word)
        while at >= 0:
            match = None if self.begins and _within_a_word(data, at) else self.pattern.match(data, at)
            if match is not None and self.holds(match[match.lastgroup or 0]):
                yield match.span(match.lastgroup or 0)
            # Nothing is looked at twice: that keeps the time in proportion, whatever somebody writes.
            at = lowered.find(self.word, at + len(self.word) if match is None else match.end())


def _within_a_word(data: bytes, at: int) -> bool:
    if at == 0 or data[at - 1] not in _TOKEN_BYTES:
        return False
    return not (at >= 2 and data[at - 2] == 0x5C and data[at - 1] in b"nrtbf")  # `\n` in JSON ends one


_T = rb"[A-Za-z0-9_-]"
_A = rb"[A-Za-z0-9]"
# Between a name and its value: `: `, `=`, `": "`, `', '`, also with the quotes escaped.
_IS = rb"(?:\\{0,3}[\"'])?[ \t]{0,8}[:=,][ \t]{0,8}(?:\\{0,3}[\"'])?"
_VALUE = rb"(?P<secret>[A-Za-z0-9_+/-]{16,4096}={0,2})"
_SCHEME = rb"(?:[Bb]earer|BEARER|[Bb]asic|BASIC|[Tt]oken|[Aa]pi[Kk]ey)[ \t]{1,4}"
_CREDENTIAL = rb"(?P<secret>[A-Za-z0-9_.~+/=:|-]{8,4096})"

# One line for each kind: the word, what follows it, how it is told from ordinary text.
_KINDS: tuple[tuple[str, bytes, Verdict], ...] = (
    ("sk-", rb"(?:(?:proj|svcacct|admin|or-v1)-" + _T + rb"{20,4096}|" + _A + rb"{32,4096})", _drawn),
    *((f"gh{kind}_", _A + rb"{36,255}", _any) for kind in "pousr"),
    ("github_pat_", rb"[A-Za-z0-9_]{22,255}", _drawn),
    ("glpat-", _T + rb"{20,255}", _drawn),
    ("akia", rb"(?-i:(?<=AKIA))[A-Z0-9]{16}(?![A-Za-z0-9_+/-])", _any),
    ("asia", rb"(?-i:(?<=ASIA))[A-Z0-9]{16}(?![A-Za-z0-9_+/-])", _any),
    ("aiza", rb"(?<=AIza)" + _T + rb"{35}(?![A-Za-z0-9_+/=-])", _drawn),
    ("ya29.", _T + rb"{20,4096}", _any),
    ("gocspx-", _T + rb"{20,255}", _any),
    *((f"xox{kind}-", rb"[A-Za-z0-9-]{10,255}", _drawn) for kind in "abeoprs"),
    ("npm_", _A + rb"{36}(?![A-Za-z0-9_])", _drawn),
    ("pypi-age", _T + rb"{40,4096}", _any),
    *((f"{kind}_{where}_", _A + rb"{16,255}", _any) for kind in ("sk", "rk") for where in ("live", "test")),
    ("hf_", _A + rb"{30,255}", _mixed),
    ("eyj", _T + rb"{10,8192}\.eyJ" + _T + rb"{10,8192}\." + _T + rb"{10,8192}", _any),  # a signed token
)

# Names whose value is a secret if it looks like one.
_NAMES = (
    *("api_key", "api-key", "apikey", "secret_key", "secretkey", "client_secret", "clientsecret"),
    *("access_token", "accesstoken", "refresh_token", "refreshtoken", "auth_token", "authtoken"),
    *("session_token", "sessiontoken", "access_key", "accesskey", "oauth_token", "id_token"),
)

_RULES: tuple[_Rule, ...] = (
    _Rule(b"sk-ant-", re.compile(rb"sk-ant-[A-Za-z0-9_-]{8,}"), begins=False),
    *(
        _Rule(word.encode(), re.compile(rb"(?i:" + re.escape(word.encode()) + rb")" + rest), holds)
        for word, rest, holds in _KINDS
    ),
    _Rule(
        b"authorization",
        re.compile(rb"(?i:authorization)" + _IS + _SCHEME + _CREDENTIAL),
        _opaque,
        begins=False,
    ),
    _Rule(b"authorization", re.compile(rb"(?i:authorization)" + _IS + _VALUE), _drawn, begins=False),
    _Rule(b"bearer ", re.compile(rb"(?i:bearer) (?P<secret>[A-Za-z0-9_.~+/=-]{20,4096})"), _drawn),
    *(
        _Rule(
            name.encode(), re.compile(rb"(?i:" + name.encode() + rb")" + _IS + _VALUE), _drawn, begins=False
        )
        for name in _NAMES
    ),
    _Rule(
        b"password=",
        re.compile(rb"(?i:password)=[\"']?(?P<secret>[^\s\"'\\&<>${}\[\]]{8,256})"),
        _opaque,
        begins=False,
    ),
    _Rule(
        b"://",
        re.compile(rb"://[A-Za-z0-9._%+-]{0,64}:(?P<secret>[^\s/@:\"'\\<>${}\[\]]{4,256})@[A-Za-z0-9\[]"),
        begins=False,
    ),
)
_KEY_EDGE = re.compile(rb"-----(BEGIN|END) (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
# Between two lines of a key there are ends of lines, also escaped, margins, and numbers of lines.
_KEY_GAP = rb"(?:\\{1,3}[nrt]|[0-9]{1,5}(?=[^A-Za-z0-9+/=])|[^A-Za-z0-9+/=\\]){1,80}"
_KEY_PIECE = re.compile(rb"(?:" + _KEY_GAP + rb")?(?P<secret>[A-Za-z0-9+/]{16,}={0,2})")
_KEY_RUN = re.compile(rb"[A-Za-z0-9+/]{16,}={0,2}")
_KEY_HEADING = re.compile(rb"\s*(?:Proc-Type|DEK-Info|Version|Comment): [ -~]*\s*")
_KEY_LINE = re.compile(rb"[^A-Za-z0-9+/=]*(?:[0-9]{1,5}[^A-Za-z0-9+/=]+)?[A-Za-z0-9+/=]{1,128}\s*")


def _is_plain(text: str) -> bool:
    """Whether no rule holds: without a sign, only a cloud key's id is a secret: it has 20 characters."""
    return len(text) < PLAIN_MAX_CHARACTERS and text.replace(" ", "").isalnum()


class Redactor:
    """Replaces secret values that are known, and whatever looks like a credential."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {form for secret in secrets if len(secret) >= SECRET_MIN_BYTES for form in _forms(secret)}
        self._known = sorted(known, key=len, reverse=True)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> "Redactor":
        """One that knows the values of all variables whose name says that they are secret."""
        return cls(value for name, value in environment.items() if _SECRET_NAME.search(name))

    def clean(self, data: bytes) -> bytes:
        """`data` without credentials; the same object if there are none. JSON stays JSON."""
        for secret in self._known:
            if secret in data:
                data = data.replace(secret, REPLACEMENT)
        lowered = data.lower()
        near = [rule for rule in _RULES if rule.word in lowered]
        spans = [span for rule in near for span in rule.spans(data, lowered)]
        if b"-----begin " in lowered:
            spans += _key_spans(data)
        return _without(data, spans) if spans else data

    def clean_text(self, text: str) -> str:
        """As `clean`; whatever else is in `text`, lone surrogates too, stays as it is."""
        if len(text) < SECRET_MIN_BYTES or (not self._known and _is_plain(text)):
            return text
        data = text.encode("utf-8", "surrogatepass")
        cleaned = self.clean(data)
        return text if cleaned is data else cleaned.decode("utf-8", "surrogatepass")


class LineRedactor:
    """Cleans a text that comes line by line: it remembers that a private key has begun and not ended."""

    def __init__(self, redactor: Redactor | None = None) -> None:
        self._redactor = redactor or PATTERNS
        self._key_lines_left = 0
        self._in_body = False  # of a key: a short line is its last one, not a word
        self._margin = b""  # what stood before the key's first line, such as `build> `

    def clean_all(self, lines: list[bytes]) -> list[bytes]:
        """Several lines; at the price of one if nothing in them looks like a credential."""
        if not self._key_lines_left:
            text = b"\n".join(lines)
            if b"-----BEGIN " not in text and self._redactor.clean(text) is text:
                return lines
        return [self.clean(line) for line in lines]

    def clean(self, line: bytes) -> bytes:
        """One line, without its end."""
        if self._key_lines_left:
            line = self._in_a_key(line)
        edges = list(_KEY_EDGE.finditer(line))
        if edges and edges[-1][1] == b"BEGIN":
            self._key_lines_left, self._in_body = KEY_MAX_LINES, False
            self._margin = line[: edges[-1].start()]
        return self._redactor.clean(line)

    def clean_text(self, line: str) -> str:
        """As `clean`."""
        return self.clean(line.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def _in_a_key(self, line: bytes) -> bytes:
        end = _KEY_EDGE.search(line)
        if end is not None:
            self._key_lines_left = 0
            return _KEY_RUN.sub(REPLACEMENT, line[: end.start()]) + line[end.start() :]
        own = line.removeprefix(self._margin)
        if not own.strip() or _KEY_HEADING.fullmatch(own):
            self._key_lines_left -= 1
            return line
        if _KEY_LINE.fullmatch(own) and (self._in_body or _KEY_RUN.search(own)):
            self._in_body = _KEY_RUN.search(own) is not None
            self._key_lines_left -= 1
            return REPLACEMENT
        self._key_lines_left = 0  # somebody only spoke of keys
        return line


def _forms(secret: str) -> Iterator[bytes]:
    """A value as it is, and as it stands in JSON."""
    yield secret.encode("utf-8", "surrogatepass")
    yield json.dumps(secret, ensure_ascii=False)[1:-1].encode("utf-8", "surrogatepass")


def _key_spans(data: bytes) -> Iterator[Span]:
    """What stands between the first and the last line of each private key."""
    edges = list(_KEY_EDGE.finditer(data))
    for edge, following in zip_longest(edges, edges[1:]):
        if edge[1] != b"BEGIN":
            continue
        start, end = edge.end(), following.start() if following is not None else len(data)
        whole = following is not None and following[1] == b"END" and end - start <= KEY_MAX_BYTES
        if not whole:
            yield from _torn_key(data, start, min(end, start + KEY_MAX_BYTES))
        elif b'"' in data[start:end].replace(b'\\"', b""):  # several texts of a JSON value
            yield from (run.span() for run in _KEY_RUN.finditer(data, start, end))
        elif _KEY_RUN.search(data, start, end):
            yield start, end


def _torn_key(data: bytes, at: int, limit: int) -> Iterator[Span]:
    """A key whose end is missing: what follows at once and looks like it."""
    while (piece := _KEY_PIECE.match(data, at, limit)) is not None:
        yield piece.span("secret")
        at = piece.end()


def _without(data: bytes, spans: list[Span]) -> bytes:
    parts, at = [], 0
    for start, end in sorted(spans):
        if end <= at:
            continue
        if start >= at:
            parts += [data[at:start], REPLACEMENT]
        at = end
    return b"".join([*parts, data[at:]])


PATTERNS: Final = Redactor()  # knows no value, only what credentials look like
