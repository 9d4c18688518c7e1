"""Credentials are taken out, and ordinary text is left alone (SECURITY 13)."""

import base64
import hashlib
import json
import re
import string
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from re._parser import parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_shared import redact
from hive_shared.redact import KEY_MAX_LINES, PATTERNS, LineRedactor, Redactor

PROJECT = Path(__file__).resolve().parents[2]
MARK = "[redacted]"

# Made up, and put together here, so that nobody who searches this repository for secrets finds one.
LONG = "Qm7xW2pLr9TzK4vNc8sYd3HfJ6bGa1Eu5oRi0tXw"
TOKENS = {
    "Anthropic API key": "sk-ant-" + "api03-" + LONG + "_" + LONG + "-AA",
    "Anthropic OAuth access token": "sk-ant-" + "oat01-" + LONG + LONG,
    "Anthropic OAuth refresh token": "sk-ant-" + "ort01-" + LONG + LONG,
    "OpenAI project key": "sk-" + "proj-" + LONG + "_" + LONG,
    "OpenAI service key": "sk-" + "svcacct-" + LONG,
    "OpenAI key of old": "sk-" + LONG[:20] + "T3Blbk" + "FJ" + LONG[20:],
    "OpenRouter key": "sk-" + "or-v1-" + hashlib.sha256(b"x").hexdigest(),
    "GitHub personal token": "ghp" + "_" + LONG[:36],
    "GitHub app token": "ghs" + "_" + LONG[:36],
    "GitHub fine-grained token": "github" + "_pat_" + "11ABCDEFG0" + LONG + "_" + LONG,
    "GitLab token": "glpat" + "-" + LONG[:20],
    "AWS key id": "AKIA" + "IOSFODNN7EXAMPLE",
    "AWS session key id": "ASIA" + "Y34FZKBOKMUTVV7A",
    "Google API key": "AIza" + "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
    "Google OAuth token": "ya29" + ".a0AfH6SM" + LONG,
    "Slack bot token": "xoxb" + "-123456789012-1234567890123-" + LONG[:24],
    "npm token": "npm" + "_" + LONG[:36],
    "PyPI token": "pypi-" + "AgEIcHlwaS5vcmc" + LONG,
    "Stripe key": "sk" + "_live_" + LONG[:24],
    "Hugging Face token": "hf" + "_" + LONG[:34],
    "signed token": "ey" + "JhbGciOiJIUzI1NiJ9" + ".ey" + "JzdWIiOiIxMjM0NTY3ODkwIn0" + "." + LONG,
}
PLACES: dict[str, Callable[[str], str]] = {
    "alone": lambda secret: secret,
    "in a sentence": lambda secret: f"use {secret}, please.",
    "in quotes": lambda secret: f"KEY='{secret}'",
    "in an address": lambda secret: f"https://example.org/x?key={secret}&y=1",
    "in JSON": lambda secret: json.dumps({"a": [{"b": secret}], "c": "ordinary"}),
    "in JSON, on a line of its own": lambda secret: json.dumps({"out": f"first\n{secret}\nlast"}),
    "in JSON in JSON": lambda secret: json.dumps({"x": json.dumps({"y": f"a\n{secret}\tb"})}),
    "between lines": lambda secret: f"one\n{secret}\r\ntwo",
    "among other letters": lambda secret: f"Schlüssel →{secret}← 🔑",
}

# (text before, the secret, text after)
NAMED = {
    "Bearer": ("Authorization: Bearer ", "mF_9.B5f-4.1JqM", ""),
    "Basic": ("authorization: Basic ", "dXNlcjpwYXNzd29yZA==", "\r\nHost: x"),
    "Basic without a digit": ("Proxy-Authorization: Basic ", "QWxhZGRpbjpvcGVuc2VzYW1l", ""),
    "curl": ("curl -H 'Authorization: token ", "0a1b2c3d4e5f60718293", "' https://example.org"),
    "a header in JSON": ('{"authorization": "Bearer ', "abc123def456", '"}'),
    "a header in JSON in JSON": ('{\\"Authorization\\": \\"Bearer ', "abc123def456", '\\"}'),
    "a header as Python shows it": ("('authorization', 'Bearer ", "abc123def456", "')"),
    "a bare header value": ("Authorization: ", "0123456789abcdef0123456789abcdef", ""),
    "AWS": ("AWS_SECRET_ACCESS_KEY=", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""),
    "AWS in a file": ("aws_secret_access_key = ", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "\n"),
    "x-api-key": ("x-api-key: ", "5f4dcc3b5aa765d61d8327deb882cf99", ""),
    "an access token": ('{"access_token": "', "2YotnFZFEjr1zCsicMWpAA", '", "expires_in": 3600}'),
    "a refresh token": ('{"refreshToken":"', "tGzv3JOkF0XG5Qx2TlKWIA", '"}'),
    "a client secret": ("client_secret=", "7Fjfp0ZBr1KtDRbnfVdmIw", "&grant_type=x"),
    "a password in an address": ("postgresql://hive:", "correct-horse9", "@db.example.org/hive"),
    "git with a token": ("https://x-access-token:", "v1.1f699f1069f60xxx", "@example.org/a/b.git"),
    "a password variable": ("PGPASSWORD=", "hunter2hunter2", " psql"),
}

KEY_LINES = [base64.b64encode(hashlib.sha384(bytes([number])).digest()).decode() for number in range(6)]
KEY_TEXT = "\n".join(
    ["-----BEGIN " + "RSA PRIVATE KEY-----", *KEY_LINES, "c2hvcnQ=", "-----END " + "RSA PRIVATE KEY-----"]
)

ORDINARY = [
    "The risk-based approach: task-oriented, disk-cached, ask-me-anything-about-it-whenever-you-want.",
    "Authorization: the operator approves; bearer of news; Authorization: required for every change.",
    "Authorization: Bearer <token>, or Authorization: Bearer $TOKEN, or Authorization: Bearer ${API_KEY}",
    "Authorization: Bearer authentication is described in docs/authorization-of-operators.md",
    "api_key = os.environ['ANTHROPIC_API_KEY']; api_key=settings.provider.api_key; api_key_file = 'x'",
    "access_token: str | None = None; refresh_token=refresh_token_of_session; client_secret: see the docs",
    "def password(self, password=None): return password == other_password",
    "http://localhost:7000/agents/alice/ and https://hive.example.org:8443/x@y and ssh://git@example.org:22/a",
    "git+https://github.com/a/b@v1.2.3 and https://user@example.org/ and a://b:c and ://:@",
    "postgresql://user:<password>@host/db and postgresql://user:$PASSWORD@host/db",
    "commit 8d1fcd6a0e6bb1c1b9c1a9c8b7a6958473625140 on main",
    "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU= and sha256:" + hashlib.sha256(b"").hexdigest(),
    "uuid " + str(uuid.UUID(int=2**127 + 12345)),
    "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUF\n-----END CERTIFICATE-----",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2wYJ7s0bYq5VvH8K6E1ZrWm7yqZ7fYv1sH0m2w3x4y me@host",
    "A key begins with -----BEGIN PRIVATE KEY----- and ends with -----END PRIVATE KEY-----, said the manual.",
    "Files with -----BEGIN PRIVATE KEY----- are looked for in 8d1fcd6a0e6bb1c1b9c1a9c8b7a6958473625140.",
    "npm_config_cache hf_hub_download pypi-server ghp_ gho_x AKIA AIza eyJ xoxb- sk- sk-ant-",
    "--- bob writes · 5f1c9a2e03b7 ---\ntext\n--- end · 5f1c9a2e03b7 ---",
    "toolu_01A09q90qw90lq917835lq9 msg_01XFDUDYJgAACzvnptvVoYEL session 3f1d7a52-0c39-4d0e-9b7e-2b8b2f0c7f11",
    "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 40).decode(),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", TOKENS)
def test_a_token_is_taken_out_wherever_it_stands(kind: str, place: str) -> None:
    secret = TOKENS[kind]
    text = PLACES[place](secret)

    cleaned = PATTERNS.clean_text(text)

    assert cleaned == text.replace(secret, MARK)
    assert PATTERNS.clean_text(cleaned) is cleaned


@pytest.mark.parametrize("case", NAMED)
def test_a_value_is_taken_out_when_its_name_says_that_it_is_secret(case: str) -> None:
    before, secret, after = NAMED[case]

    assert PATTERNS.clean_text(before + secret + after) == before + MARK + after


@pytest.mark.parametrize("text", ORDINARY, ids=range(len(ORDINARY)))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert PATTERNS.clean_text(text) is text
    assert PATTERNS.clean_text(json.dumps(text)) == json.dumps(text)
    assert [LineRedactor().clean_text(line) for line in text.splitlines()] == text.splitlines()


def test_this_projects_own_sources_and_documents_are_ordinary_text() -> None:
    files = [
        *PROJECT.glob("hive_*/**/*.py"),
        *PROJECT.glob("assets/**/*.js"),
        *PROJECT.glob("docs/**/*.md"),
        *PROJECT.glob("prompts/*.md"),
        *PROJECT.glob(".ci/locks/*.txt"),
        *PROJECT.glob(".ci/locks/claude/*.json"),
        PROJECT / "README.md",
    ]
    assert len(files) > 150
    for file in files:
        text = file.read_text()
        assert PATTERNS.clean_text(text) is text, file


@given(st.binary(min_size=16, max_size=64), st.binary(max_size=600))
def test_hashes_uuids_and_encoded_files_stay_as_they_are(seed: bytes, file: bytes) -> None:
    digest = hashlib.sha512(seed).digest()
    texts = [
        hashlib.sha1(seed, usedforsecurity=False).hexdigest(),
        hashlib.sha256(seed).hexdigest(),
        str(uuid.UUID(bytes=digest[:16])),
        "sha512-" + base64.b64encode(digest).decode(),
        base64.b64encode(file).decode(),
        base64.urlsafe_b64encode(file).decode(),
        json.dumps({"type": "image", "source": {"data": base64.b64encode(file).decode()}}),
    ]
    for text in texts:
        assert PATTERNS.clean_text(text) is text


@given(st.text(max_size=300))
def test_any_text_without_a_credential_comes_back_as_it_is(text: str) -> None:
    assert PATTERNS.clean_text(text) == text


def _nested(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)


_LEAVES = st.none() | st.text(max_size=20) | st.sampled_from([*TOKENS.values(), KEY_TEXT])


WORDS = sorted({"".join(filter(str.isalnum, rule.word.decode())) for rule in redact._RULES} | {"AKIA", "eyJ"})


@given(st.lists(st.sampled_from(WORDS) | st.text(string.ascii_letters + string.digits + " ", max_size=19)))
def test_what_is_taken_for_plain_without_a_look_is_plain(parts: list[str]) -> None:
    text = "".join(parts)[: redact.PLAIN_MAX_CHARACTERS - 1]
    data = text.encode()
    assert redact.PATTERNS.clean(data) is data
    longer = "AKIA" + "A" * 16
    assert not redact._is_plain(longer)
    assert redact.PATTERNS.clean_text(longer) != longer


@given(st.recursive(_LEAVES, _nested, max_leaves=8))
def test_json_stays_json_and_holds_no_token(value: object) -> None:
    cleaned = PATTERNS.clean_text(json.dumps(value))

    json.loads(cleaned)
    assert not any(secret in cleaned for secret in (*TOKENS.values(), *KEY_LINES))


# --- values that are known ---


def test_known_values_are_taken_out_also_as_json_writes_them() -> None:
    redactor = Redactor.of_environment(
        {
            "MY_TOKEN": 'sword"fish\\9',
            "TWO_LINES_KEY": "one line\nand another",
            "SHORT_KEY": "abc",
            "HOME": "/home/a",
        }
    )
    text = json.dumps({"out": 'sword"fish\\9 one line\nand another abc /home/a'})

    assert json.loads(redactor.clean_text(text)) == {"out": f"{MARK} {MARK} abc /home/a"}


# --- private keys ---


@pytest.mark.parametrize(
    "shown",
    [
        KEY_TEXT,
        KEY_TEXT.replace("\n", "\r\n"),
        json.dumps({"content": KEY_TEXT}),
        json.dumps({"content": json.dumps({"inner": KEY_TEXT})}),
        "\n".join(f"{number:6}→{line}" for number, line in enumerate(KEY_TEXT.split("\n"), 1)),
        "\n".join(f"{number:6}\t{line}" for number, line in enumerate(KEY_TEXT.split("\n"), 1)),
        json.dumps({"lines": KEY_TEXT.split("\n")}),
        "+" + KEY_TEXT.replace("\n", "\n+"),
        KEY_TEXT.rpartition("\n")[0],
        json.dumps(KEY_TEXT.rpartition("\n")[0] + "\nand the rest was cut"),
    ],
    ids=["plain", "crlf", "json", "json-in-json", "read", "cat-n", "list", "diff", "torn", "torn-json"],
)
def test_nothing_of_a_private_key_is_left(shown: str) -> None:
    cleaned = PATTERNS.clean_text(shown)

    assert not any(line in cleaned for line in KEY_LINES)
    assert "BEGIN RSA PRIVATE KEY" in cleaned, "that there was one is worth knowing"
    if shown.startswith(("{", '"')):
        json.loads(cleaned)


# --- texts that come in pieces ---


@pytest.mark.parametrize("prefix", ["", "alice| ", "  12\t"])
def test_a_private_key_is_taken_out_of_a_text_that_comes_line_by_line(prefix: str) -> None:
    lines = ["before", *KEY_TEXT.split("\n"), "after", LONG]
    redactor = LineRedactor()

    cleaned = [redactor.clean_text(prefix + line) for line in lines]

    told = "\n".join(cleaned)
    assert not any(line in told for line in [*KEY_LINES, "c2hvcnQ="])
    assert cleaned[0] == f"{prefix}before"
    assert cleaned[-2:] == [f"{prefix}after", prefix + LONG], "the key has ended"


def test_an_encrypted_key_has_headings() -> None:
    begin, *rest = KEY_TEXT.split("\n")
    lines = [begin, "Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-256-CBC,0123456789ABCDEF", "", *rest]
    redactor = LineRedactor()

    told = "\n".join(redactor.clean_text(line) for line in lines)

    assert "Proc-Type" in told
    assert not any(line in told for line in KEY_LINES)


def test_who_only_begins_a_key_does_not_blank_out_the_log() -> None:
    redactor = LineRedactor()
    redactor.clean(b"-----BEGIN PRIVATE KEY-----")

    assert redactor.clean(b"no key follows: done") == b"no key follows: done"
    assert redactor.clean(LONG.encode()) == LONG.encode()

    redactor.clean(b"-----BEGIN PRIVATE KEY-----")
    cleaned = [redactor.clean(KEY_LINES[0].encode()) for _ in range(KEY_MAX_LINES + 1)]
    assert cleaned[0] == MARK.encode()
    assert cleaned[-1] == KEY_LINES[0].encode(), "no key is that long"


def test_several_lines_at_once_give_the_same_as_one_by_one() -> None:
    lines = ["before", *KEY_TEXT.split("\n"), f"x {TOKENS['npm token']}", "after"]
    together, alone = LineRedactor(), LineRedactor()
    for cut in range(len(lines)):
        raw = [line.encode() for line in lines]
        told = together.clean_all(raw[:cut]) + together.clean_all(raw[cut:])
        assert told == [alone.clean(line) for line in raw]


# --- it takes a time in proportion, whatever somebody writes ---


class Watched:
    """A pattern that counts how many bytes it has looked at."""

    def __init__(self, pattern: re.Pattern[bytes], steps: list[int]) -> None:
        self._pattern = pattern
        self._steps = steps

    def match(self, data: bytes, at: int) -> re.Match[bytes] | None:
        match = self._pattern.match(data, at)
        self._steps.append(match.end() - at if match else 1)
        return match


HOSTILE = [
    *(rule.word for rule in redact._RULES),
    *(rule.word + b"=" for rule in redact._RULES),
    *(rule.word + b"a" * 5000 + b" " for rule in redact._RULES),
    *(rule.word + b": bearer " + b"a" * 5000 + b" " for rule in redact._RULES),
    *(b"eyJa.", b"://a:", b"-----BEGIN ", b'api_key\\\\\\"', b"api_key" + b" " * 5000, b"\\n", b"\\"),
    *(b"-----BEGIN PRIVATE KEY-----" + rest for rest in (b"", b"1 1 ", b"a" * 15_000)),
]


@pytest.mark.parametrize("piece", HOSTILE, ids=lambda piece: piece[:24].decode())
def test_twice_the_text_takes_twice_the_steps(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    watched = [replace(rule, pattern=Watched(rule.pattern, steps)) for rule in redact._RULES]
    monkeypatch.setattr(redact, "_RULES", watched)

    def taken(size: int) -> int:
        steps.clear()
        PATTERNS.clean((piece * (size // len(piece) + 1))[:size])
        return sum(steps)

    assert taken(80_000) <= 2 * taken(40_000) + 2 * 10_000
    assert taken(80_000) <= 4 * 80_000, "a few rules share a word, and no byte is looked at over and over"


def test_every_rule_looks_at_a_bounded_piece() -> None:
    endless = [rule for rule in redact._RULES if parse(rule.pattern.pattern).getwidth()[1] > 40_000]
    assert [rule.word for rule in endless] == [b"sk-ant-"], "which takes what it has looked at"
