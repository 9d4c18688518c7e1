"""Rules for tools: what they match, and which of them holds."""

import pytest

from hive_shared.errors import BadRequest
from hive_shared.permissions import (
    ToolCall,
    Verdict,
    commands_of,
    decide,
    denies,
    key_of,
    matches,
    offered_tools,
    parse_rule,
    rule_for,
)


def bash(command: str) -> ToolCall:
    return ToolCall("Bash", {"command": command}, "/state")


@pytest.mark.parametrize(
    ("rule", "command", "allowed"),
    [
        ("Bash", "anything; at all", True),
        ("Bash(git *)", "git status", True),
        ("Bash(git *)", "git", True),
        ("Bash(git:*)", "git push --force", True),
        ("Bash(git *)", "gitk", False),
        ("Bash(git *)", "git status && git diff | git apply", True),
        ("Bash(git *)", "git status; rm -rf /state", False),
        ("Bash(git *)", "git status & rm x", False),
        ("Bash(git *)", "git status\nrm x", False),
        ("Bash(git *)", "git log $(rm x)", False),
        ("Bash(git *)", 'git commit -m "`rm x`"', False),
        ("Bash(git *)", "git commit -m 'a; $(b) & c'", True),
        ("Bash(git *)", 'git commit -m "a; b"', True),
        ("Bash(git *)", "git log > /etc/profile", False),
        ("Bash(git *)", "git log &> /etc/profile", False),
        ("Bash(git *)", "git log 2>&1 >/dev/null", True),
        ("Bash(git *)", "git log >/dev/null/../../etc/profile", False),
        ("Bash(git *)", "git log 'never ends", False),
        ("Bash(git *)", "GIT_DIR=/x git status", False),
        ("Bash(make *test)", "make unit test", True),
        ("Bash(rm \\*)", "rm *", True),
        ("Bash(rm \\*)", "rm x", False),
        ("Bash(a; b > c)", "a; b > c", True),
        ("Read", "git status", False),
        ("*", "anything", True),
    ],
)
def test_what_a_rule_allows_of_bash(rule: str, command: str, allowed: bool) -> None:
    assert matches(rule, bash(command)) is allowed


@pytest.mark.parametrize(
    "command",
    [
        "rm x",
        "ls && rm x",
        "ls; sudo rm x",
        "A=1 B='2 3' rm x",
        "if true; then rm x; fi",
        "echo $(rm x)",
        'echo "`rm x`"',
        "(rm x)",
        "ls | rm x",
        "rm",
    ],
)
def test_a_denied_command_is_found_within_a_line(command: str) -> None:
    assert denies("Bash(rm *)", bash(command))
    assert not denies("Bash(rm *)", bash("echo rm x; farm x"))


@pytest.mark.parametrize(
    ("rule", "path", "allowed"),
    [
        ("Edit(/state/*)", "/state/notes/a.md", True),
        ("Edit(/state/*)", "notes.md", True),
        ("Edit(/state/*)", "/state/../etc/passwd", False),
        ("Edit(/state/*)", "../etc/passwd", False),
        ("Edit(/state/a.md)", "/state/a.md", True),
        ("Write(/state/*)", "/state/a.md", False),
    ],
)
def test_what_a_rule_allows_of_files(rule: str, path: str, allowed: bool) -> None:
    assert matches(rule, ToolCall("Edit", {"file_path": path}, "/state")) is allowed


def test_domains_are_whole_ones() -> None:
    rule = "WebFetch(domain:example.org)"
    assert matches(rule, ToolCall("WebFetch", {"url": "https://EXAMPLE.org/a"}))
    for url in ("https://example.org.evil.net/", "https://evil.net/example.org", "https://a@b@c:x:y/", "x"):
        assert not matches(rule, ToolCall("WebFetch", {"url": url}))


def test_a_server_stands_for_its_tools_and_a_pattern_for_none_of_them() -> None:
    call = ToolCall("mcp__forge__issue", {"title": "x"})
    assert matches("mcp__forge", call)
    assert matches("mcp__forge__issue", call)
    assert not matches("mcp__for", call)
    assert not matches("mcp__forge__issue(x)", call)


def test_denied_beats_allowed_beats_asked() -> None:
    def verdict(command: str) -> Verdict:
        rules = {"allow": ["Bash(git *)"], "deny": ["Bash(git push *)", "no rule ("]}
        return decide(bash(command), **rules, default=Verdict.ASK)

    assert verdict("git status") is Verdict.ALLOW
    assert verdict("git push") is Verdict.DENY
    assert verdict("git status; git push x") is Verdict.DENY
    assert verdict("make") is Verdict.ASK


def test_several_rules_allow_a_line_together() -> None:
    allow = ["Bash(git *)", "Bash(make *)"]
    assert decide(bash("git pull && make"), allow=allow, deny=[], default=Verdict.ASK) is Verdict.ALLOW


@pytest.mark.parametrize(
    "call",
    [
        bash("git push origin main"),
        bash("rm *; echo 'a (b), c' > d \\* e"),
        bash("make:*"),
        bash("echo a \\\\ *"),
        ToolCall("Edit", {"file_path": "a*b"}, "/state"),
        ToolCall("WebFetch", {"url": "https://example.org/a"}),
        ToolCall("mcp__forge__issue", {}),
        ToolCall("Task", {"prompt": "x"}),
    ],
)
def test_always_means_this_call_and_as_little_else_as_can_be(call: ToolCall) -> None:
    assert matches(rule_for(call), call)
    if call.tool == "Bash":
        assert not matches(rule_for(call), bash(f"{call.input['command']}; rm x"))
        assert not matches(rule_for(call), bash(f"{call.input['command']} x"))


def test_what_cannot_be_written_down_has_no_rule() -> None:
    assert rule_for(bash("x" * 5000)) == ""
    assert rule_for(bash("a\x00b")) == ""
    assert rule_for(ToolCall("Bash", {}, "/")) == ""


@pytest.mark.parametrize("text", ["", "Bash(", "Bash()", "*(x)", "a b", "Bash(x)y", "x" * 3000, "Bash(\x1b)"])
def test_no_rules(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_rule(text)


def test_the_parts_of_a_line() -> None:
    assert commands_of("a && b || c; d | e & f") == (["a", "b", "c", "d", "e", "f"], True)
    assert commands_of("a 'b;c' \"d|e\" f\\;g") == (["a 'b;c' \"d|e\" f\\;g"], True)
    assert commands_of("") == ([], True)
    assert commands_of("a\\") == (["a\\"], True)


def test_keys_are_of_message_call_and_place() -> None:
    keys = {key_of(1, bash("a")), key_of(2, bash("a")), key_of(1, bash("b"))}
    keys |= {
        key_of(1, ToolCall("Bash", {"command": "a"}, "/")),
        key_of(1, ToolCall("Read", {"command": "a"}, "/")),
    }
    assert len(keys) == 5
    assert key_of(1, ToolCall("X", {"a": 1, "b": 2})) == key_of(1, ToolCall("X", {"b": 2, "a": 1}))


def test_offered_tools_are_named_once() -> None:
    assert offered_tools(["Bash(git *)", "Bash", "mcp__a", "*", "Read"]) == ("Bash", "Read")
