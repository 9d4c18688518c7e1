"""What proxies write, as it is read; base paths and cookies of the dashboard's origins."""

from typing import Any

import pytest
from starlette.datastructures import Headers

from hive_core.config import BadConfig, load_settings
from hive_core.web.cookie import COOKIES_TRIED_MAX, SessionCookie, under_any_name
from hive_core.web.failures import LISTED_PER_HOUR, FailureLimit, ListedFailures, group_of
from hive_core.web.headers import HostRules
from hive_core.web.proxies import Caller, Proxies
from hive_core.web.refusals import WebRefusal

PROXY = "10.0.0.1"


def _headers(*fields: tuple[str, str]) -> Headers:
    return Headers(raw=[(name.encode(), value.encode()) for name, value in fields])


def _scope(peer: str | None, **state: Any) -> dict[str, Any]:
    return {"client": (peer, 1) if peer else None, "state": state}


def _address(hops: str, trusted: list[str]) -> str:
    headers = _headers(("x-forwarded-for", hops))
    return Proxies(trusted).caller(_scope(PROXY), headers).address


@pytest.mark.parametrize(
    ("hops", "found"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("198.51.100.1, 192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, 10.0.0.2", "192.0.2.7"),  # a proxy before our proxy
        ("198.51.100.1, 192.0.2.7, 10.0.0.2, 10.0.0.3", "192.0.2.7"),
        ("10.0.0.2", "10.0.0.2"),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, unknown", PROXY),
        ("192.0.2.7, _hidden, 10.0.0.2", "10.0.0.2"),
        ("fe80::1%<script>", PROXY),
        ("", PROXY),
        (",,,", PROXY),
        ("x" * 10_000, PROXY),
    ],
)
def test_the_nearest_address_that_is_no_proxys_is_the_clients(hops: str, found: str) -> None:
    assert _address(hops, ["10.0.0.0/8"]) == found


def test_several_headers_are_one_list() -> None:
    headers = _headers(("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "192.0.2.7"))
    assert Proxies([PROXY]).caller(_scope(PROXY), headers).address == "192.0.2.7"


def test_headers_count_from_a_named_proxy_and_by_its_socket_only() -> None:
    headers = _headers(
        ("x-forwarded-for", "192.0.2.7"), ("x-forwarded-host", "Hive.Example"), ("x-forwarded-proto", "HTTPS")
    )
    told = Caller("192.0.2.7", "hive.example", "https")
    assert Proxies([PROXY]).caller(_scope(PROXY), headers) == told
    assert Proxies([PROXY]).caller(_scope("10.0.0.2"), headers) == Caller("10.0.0.2")
    assert Proxies([]).caller(_scope(PROXY), headers) == Caller(PROXY)
    assert Proxies([PROXY]).caller(_scope(None), headers) == Caller("unknown")
    assert Proxies([]).caller(_scope(None, by_socket=True), headers) == told
    assert Proxies([]).caller(_scope(None, by_socket=True), _headers()) == Caller("the proxy")


@pytest.mark.parametrize(
    ("value", "caller"),
    [
        ("for=192.0.2.7", Caller("192.0.2.7")),
        (
            "for=198.51.100.1, for=192.0.2.7;proto=https;host=hive.example",
            Caller("192.0.2.7", "hive.example", "https"),
        ),
        ('For="[2001:db8::7]:4711" ; Proto=HTTPS', Caller("2001:db8::7", None, "https")),
        ("host=evil.example, for=192.0.2.7", Caller("192.0.2.7")),  # only the nearest one's word
        ("for=unknown", Caller(PROXY)),
        (r'for="192.0.2.\7"', Caller("192.0.2.7")),
    ],
)
def test_the_standard_header_is_read_as_rfc_7239_has_it(value: str, caller: Caller) -> None:
    headers = _headers(("forwarded", value), ("x-forwarded-for", "203.0.113.1"))
    assert Proxies([PROXY], "forwarded").caller(_scope(PROXY), headers) == caller


@pytest.mark.parametrize("value", ['for="x', "for=1;for=2", "for", "=", "a=b c=d", 'a="b"c', "\x00"])
def test_a_header_that_can_be_read_in_two_ways_is_refused(value: str) -> None:
    headers = _headers(("forwarded", value))
    with pytest.raises(WebRefusal):
        Proxies([PROXY], "forwarded").caller(_scope(PROXY), headers)


# --- settings ---


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("trusted_proxies", ["everywhere"], "not an address"),
        ("trusted_proxies", ["10.0.0.1/8"], "host bits"),
        ("trusted_proxies", ["0.0.0.0/0"], "everybody"),
        ("trusted_proxies", ["::/0"], "everybody"),
        ("allowed_hosts", ["https://example.org/hive?x"], "neither a name"),
        ("allowed_hosts", ["https://user@example.org"], "neither a name"),
        ("allowed_hosts", ["ftp://example.org"], "neither a name"),
        ("allowed_hosts", ["*.example.org"], "neither a name"),
        ("allowed_hosts", ["https://example.org/a b"], "neither a name"),
        ("allowed_hosts", ["https://example.org/../x"], "cannot be under"),
        ("allowed_hosts", ["https://example.org/agents"], "cannot be under"),
        ("allowed_hosts", ["https://example.org/a", "https://Example.org/b"], "twice"),
        ("session_idle_days", 0, "greater than 0"),
        ("session_max_days", -1, "greater than 0"),
        ("forwarded_headers", "both", "x-forwarded"),
    ],
)
def test_what_would_open_a_door_by_mistake_is_refused(name: str, value: object, said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        load_settings({name: value})


def test_what_stands_in_the_documentation_is_accepted() -> None:
    hosts = ["hive.lan", "Hive.LAN:81", "[::1]:7100", "https://a.example", "https://b.example:444/x/hive/"]
    assert load_settings({"allowed_hosts": hosts}).allowed_hosts == hosts
    proxies = ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"]
    assert load_settings({"trusted_proxies": proxies}).trusted_proxies == proxies


def test_a_base_path_belongs_to_its_origin() -> None:
    rules = HostRules.of(
        7000, "127.0.0.1", ["https://A.example/Hive/", "https://b.example:444/x/y", "hive.lan"]
    )
    assert rules.origin_of("a.example") == "https://a.example"
    assert rules.base_path_of("https://a.example") == "/Hive/"
    assert rules.base_path_of("https://b.example:444") == "/x/y/"
    assert rules.base_path_of("http://hive.lan:7000") == "/"
    assert rules.base_path_of("http://localhost:7000") == "/"


# --- cookies and failures ---


def test_a_cookie_is_read_by_its_own_name_however_many_there_are() -> None:
    cookie = SessionCookie.of("https://a.example", "/", 7000)
    planted = "; ".join(f"hive_session_7000=planted{number}" for number in range(100))
    headers = _headers(
        ("cookie", f"{planted}; __Host-hive_session_7001=other"), ("cookie", "__Host-hive_session_7000=mine")
    )
    assert cookie.values(headers) == ["mine"]
    mixed = _headers(("cookie", "__Secure-hive_session_7000=a; hive_session_7001=b; hive_session_7000=c"))
    assert under_any_name(mixed, 7000) == ["a", "c"]
    many = _headers(("cookie", "; ".join(f"{cookie.name}=x{number}" for number in range(500))))
    assert len(cookie.values(many)) == COOKIES_TRIED_MAX


def test_addresses_that_one_machine_has_by_the_million_count_as_one() -> None:
    assert group_of("127.0.0.1") == group_of("127.8.9.10") == group_of("::1")
    assert group_of("2001:db8::1") == group_of("2001:db8::ffff:1:2:3")
    assert group_of("2001:db8::1") != group_of("2001:db8:0:1::1")
    assert group_of("192.0.2.1") != group_of("192.0.2.2")
    assert group_of("the proxy") == "the proxy"


def test_a_series_is_told_once_a_minute() -> None:
    now = [0]
    limit = FailureLimit(lambda: now[0])
    for _ in range(10):
        assert not limit.exceeded("192.0.2.1")
        limit.count("192.0.2.1")
    assert limit.exceeded("192.0.2.1")
    assert [limit.begins_series("192.0.2.1") for _ in range(3)] == [True, False, False]
    assert not limit.exceeded("192.0.2.2")
    now[0] += 60_000
    assert not limit.exceeded("192.0.2.1")


def test_of_an_hour_of_failures_so_many_are_written_down_and_the_last_says_so() -> None:
    now = [0]
    listed = ListedFailures(lambda: now[0])
    notes = [listed.note("wrong") for _ in range(2 * LISTED_PER_HOUR)]
    assert notes[: LISTED_PER_HOUR - 1] == ["wrong"] * (LISTED_PER_HOUR - 1)
    assert notes[LISTED_PER_HOUR - 1] == "wrong; further failures of this hour are not listed"
    assert set(notes[LISTED_PER_HOUR:]) == {None}
    now[0] += 3_600_000
    assert listed.note("wrong") == "wrong"
