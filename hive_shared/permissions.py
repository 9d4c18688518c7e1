"""What an agent may do with its tools: rules, and which of them holds for a call.

A rule is a tool, or a tool with a pattern: `Read`, `Bash(git *)`, `Edit(/state/notes/*)`,
`WebFetch(domain:example.org)`, `mcp__forge`, `mcp__forge__issue`, or `*` for every tool. In a pattern `*`
stands for any text; `\\*` and `\\\\` for themselves. Denied beats allowed, allowed beats asked.

This guides agents. It is no boundary: the container is. A shell has more ways to say a thing than any
pattern knows.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from hive_shared.errors import BadRequest

RULE_MAX_CHARACTERS: Final = 2000
RULES_MAX: Final = 200
LOOKING: Final = ("Glob", "Grep", "Read", "TodoWrite")  # allowed unless a configuration says otherwise
EVERYTHING: Final = "*"
ASK_TIMEOUT_MAX_SECONDS: Final = 30 * 86_400

_RULE = re.compile(r"(\*|[A-Za-z][A-Za-z0-9_-]{0,127})(?:\((.+)\))?\Z", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TOKEN = re.compile(r"\\\\|\\\*|\*|[^*\\]+|\\", re.DOTALL)
_FILE_OF = {"Read": "file_path", "Edit": "file_path", "Write": "file_path", "NotebookEdit": "notebook_path"}
_LOOKED_AT = ("Glob", "Grep")
_WITH_SUBJECT = frozenset({"Bash", "WebFetch", "WebSearch", *_FILE_OF, *_LOOKED_AT})
_DOMAIN = "domain:"
_ADDRESS = re.compile(r"https?://([a-z0-9.-]+)(?::[0-9]*)?(?:[/?#]|\Z)", re.IGNORECASE)
_BLANKS = " \t\n"  # of a shell


class Verdict(StrEnum):
    """What becomes of a call."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


class PermissionOptions(BaseModel):
    """`hyperhive.permissions` of an `agent.nix`. Without `ask_timeout_seconds` a request waits for ever."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow: Annotated[tuple[str, ...], Field(max_length=RULES_MAX)] = LOOKING
    deny: Annotated[tuple[str, ...], Field(max_length=RULES_MAX)] = ()
    default: Literal["ask", "deny"] = "ask"
    ask_timeout_seconds: Annotated[int, Field(ge=1, le=ASK_TIMEOUT_MAX_SECONDS)] | None = None


@dataclass(frozen=True)
class ToolCall:
    """A tool that an agent wants to use, and where it is."""

    tool: str
    input: Mapping[str, Any]
    cwd: str = "/"
    shown: Mapping[str, Any] | None = None  # the input as it may be told of, where that differs: no secrets

    @property
    def subject(self) -> str | None:
        """What a pattern is compared with; None for a tool of which only the whole can be named."""
        if self.tool == "Bash":
            return self._text("command")
        if self.tool in _FILE_OF:
            return self._path(self._text(_FILE_OF[self.tool]))
        if self.tool in _LOOKED_AT:
            return self._looked_at()
        if self.tool == "WebFetch":
            return self._text("url")
        return self._text("query") if self.tool == "WebSearch" else None

    def _text(self, name: str) -> str | None:
        value = self.input.get(name)
        return value if isinstance(value, str) else None

    def _path(self, path: str | None) -> str | None:
        if path is None:
            return None
        whole = posixpath.normpath(posixpath.join(self.cwd or "/", path))
        return "/" + whole.lstrip("/") if whole.startswith("//") else whole  # POSIX keeps two slashes

    def _looked_at(self) -> str | None:
        """The directory; a pattern of Glob can lead out of it."""
        place = self._path(self._text("path") or self.cwd)
        pattern = self._text("pattern") if self.tool == "Glob" else None
        if place is None or pattern is None or not (pattern.startswith("/") or ".." in pattern):
            return place
        return None if "{" in pattern else self._path(posixpath.join(place, pattern))


@dataclass(frozen=True)
class Rule:
    """One rule, taken apart."""

    tool: str
    pattern: str | None

    def names(self, tool: str) -> bool:
        """Whether it is about this tool at all; a server's name is about all of its tools."""
        if self.tool in (EVERYTHING, tool):
            return True
        return self.tool.startswith("mcp__") and tool.startswith(f"{self.tool}__")

    def fits(self, text: str) -> bool:
        return self.pattern is None or _like(self.pattern, text)


@lru_cache(maxsize=1024)
def parse_rule(text: str) -> Rule:
    """Raises `BadRequest` for what is no rule."""
    match = _RULE.match(text) if len(text) <= RULE_MAX_CHARACTERS else None
    if match is None or _CONTROL.search(text) or (match[1] == EVERYTHING and match[2] is not None):
        raise BadRequest(
            f"rule {text[:60]!r}: such as Read, Bash(git *), Edit(/state/*), mcp__<server>__<tool>, or *; "
            f"at most {RULE_MAX_CHARACTERS} characters",
            field="rule",
        )
    return Rule(match[1], match[2])


def decide(call: ToolCall, *, allow: Iterable[str], deny: Iterable[str], default: Verdict) -> Verdict:
    """What becomes of a call by these rules. A rule that is none counts for nothing."""
    if any(_denies(rule, call) for rule in _parsed(deny, call.tool)):
        return Verdict.DENY
    return Verdict.ALLOW if _allowed(call, list(_parsed(allow, call.tool))) else default


def matches(rule: str, call: ToolCall) -> bool:
    """Whether this one rule allows the call; raises `BadRequest` for what is no rule."""
    parsed = parse_rule(rule)
    return parsed.names(call.tool) and _allowed(call, [parsed])


def denies(rule: str, call: ToolCall) -> bool:
    """Whether this one rule forbids the call; raises `BadRequest` for what is no rule."""
    parsed = parse_rule(rule)
    return parsed.names(call.tool) and _denies(parsed, call)


def rule_for(call: ToolCall) -> str:
    """The narrowest rule that allows this call again; "" if there is none that could be written down."""
    subject = call.subject
    if call.tool == "WebFetch" and subject is not None:
        host = _host(subject)
        rule = f"WebFetch({_DOMAIN}{host})" if host else ""
    elif subject is None:  # the whole tool, unless its pattern's text is what is missing
        rule = "" if call.tool in _WITH_SUBJECT else call.tool
    else:
        rule = f"{call.tool}({_escaped(subject)})"
    try:
        return rule if rule and matches(rule, call) else ""
    except BadRequest:
        return ""


def offered_tools(rules: Sequence[str]) -> tuple[str, ...]:
    """The backend's own tools that rules name, each once."""
    tools = (rule.partition("(")[0] for rule in rules)
    return tuple(dict.fromkeys(tool for tool in tools if not tool.startswith("mcp__") and tool != EVERYTHING))


def key_of(message_id: int, call: ToolCall) -> str:
    """The same call in the turn of the same message has the same key, restarts or not."""
    parts = [message_id, call.tool, dict(call.input), call.cwd]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _parsed(rules: Iterable[str], tool: str) -> Iterator[Rule]:
    for text in rules:
        try:
            rule = parse_rule(text)
        except BadRequest:
            continue
        if rule.names(tool):
            yield rule


def _allowed(call: ToolCall, rules: list[Rule]) -> bool:
    if any(rule.pattern is None for rule in rules):
        return True
    subject = call.subject
    if subject is None:
        return False
    if call.tool == "WebFetch":
        return any(_fits_url(rule, subject) for rule in rules)
    if call.tool != "Bash":
        return any(rule.fits(subject) for rule in rules)
    if any(_is_exactly(rule, subject) for rule in rules):
        return True
    parts, plain = commands_of(subject)
    return plain and bool(parts) and all(any(rule.fits(part) for rule in rules) for part in parts)


def _denies(rule: Rule, call: ToolCall) -> bool:
    if rule.pattern is None:
        return True
    subject = call.subject
    if subject is None:
        return False
    if call.tool == "WebFetch":
        # Where the host cannot be told for certain, it may be the one that is denied.
        return _fits_url(rule, subject) or (_is_domain(rule) and not _host(subject))
    if rule.fits(subject):
        return True
    if call.tool != "Bash":
        return False
    return any(rule.fits(shown) for part in commands_of(subject)[0] for shown in (part, _bare(part)))


def _is_domain(rule: Rule) -> bool:
    return (rule.pattern or "").startswith(_DOMAIN)


def _fits_url(rule: Rule, url: str) -> bool:
    if _is_domain(rule):
        host = _host(url)
        return bool(host) and _like((rule.pattern or "").removeprefix(_DOMAIN).lower(), host)
    return rule.fits(url)


def _host(url: str) -> str:
    """Only of an address that all programs read alike: none with a backslash, a user or escapes before it."""
    match = _ADDRESS.match(url)
    return match[1].lower().rstrip(".") if match else ""


# --- patterns ------------------------------------------------------------------


def _like(pattern: str, text: str) -> bool:
    """Takes a time in proportion to the text, whatever both say: an agent writes the one."""
    return any(_in_order(literals, text) for literals in _literals(pattern))


def _in_order(literals: tuple[str, ...], text: str) -> bool:
    """Whether text consists of these, with anything in between."""
    first, *between = literals
    if not between:
        return text == first
    last = between.pop()
    at, end = len(first), len(text) - len(last)
    if at > end or not (text.startswith(first) and text.endswith(last)):
        return False
    for literal in between:
        at = text.find(literal, at, end)
        if at < 0:
            return False
        at += len(literal)
    return True


@lru_cache(maxsize=1024)
def _literals(pattern: str) -> tuple[tuple[str, ...], ...]:
    """What stands between the stars. `git *` and `git:*` are `git` with or without anything behind it."""
    if pattern.endswith(":*"):
        pattern = pattern[:-2] + " *"
    with_rest = len(pattern) > 2 and pattern.endswith(" *")
    literals = [""]
    for part in _TOKEN.findall(pattern[:-2] if with_rest else pattern):
        if part == "*":
            literals.append("")
        else:
            literals[-1] += {"\\\\": "\\", "\\*": "*"}.get(part, part)
    if not with_rest:
        return (tuple(literals),)
    # A shell ends a word at these only: with any other space, it would be another program.
    rests = ((*literals[:-1], literals[-1] + blank, "") for blank in _BLANKS)
    return (tuple(literals), *rests)


def _is_exactly(rule: Rule, text: str) -> bool:
    """Without any `*`: then it speaks of the whole command, however that is composed."""
    pattern = rule.pattern or ""
    return not any(part == "*" for part in _TOKEN.findall(pattern)) and rule.fits(text)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("*", "\\*")


# --- the commands of a shell's line --------------------------------------------

_ENDS = frozenset(";|\n")
_BEFORE_COMMENT = frozenset(" \t\n;|&()<>")
_HARMLESS = re.compile(r"(?:>>?|&>>?)\s*(?:/dev/null|&\d)(?=[\s;|&)]|\Z)|<<<|<(?!<)")
_VARIABLE = re.compile(r"\$\{\w+\}", re.ASCII)
_QUOTING = frozenset("'\"\\`")
_KEYWORD = re.compile(r"(?:(?:then|do|else|elif|if|while|until|!|\{|sudo|env|command|nohup|time|exec)\s+)+")
_ASSIGNMENT = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*=(?:'[^']*'|\"[^\"]*\"|[^\s'\"]*)\s+)+")


def commands_of(line: str) -> tuple[list[str], bool]:
    """The commands that a line of shell is made of, and whether that is all there is to it.

    It is not where a command is made by another (`$(…)`, `${…}` with more than a name), runs in a subshell,
    writes a file by `>`, reads its input from the lines behind it (`<<`), or where we might see other quotes
    than the shell does.
    """
    parts, plain, quote, start, at = [], True, "", 0, 0
    looked_to = 0  # comments were looked for quotes up to here; nothing is looked at twice
    while at < len(line):
        character = line[at]
        step = 1
        if quote == "'":
            quote = "" if character == "'" else quote
        elif character == "\\":
            step = 2
            plain = plain and not _joins(line, at)
        elif quote == "$'":
            quote = "" if character == "'" else quote
        elif character == "`" or line.startswith("$(", at) or (not quote and character in "()"):
            plain = False
            step = 2 if character == "$" else 1
            parts.append(line[start:at])
            start = at + step
        elif character == "$":
            step, plain = _dollar(line, at, plain)
            if not quote and line.startswith("$'", at):
                quote, step, plain = "$'", 2, False
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "#" and at >= looked_to and (at == 0 or line[at - 1] in _BEFORE_COMMENT):
            end = line.find("\n", at)
            looked_to = len(line) if end < 0 else end
            if _QUOTING & set(line[at:looked_to]):
                step, plain = looked_to - at, False
        elif character in "<>" or line.startswith("&>", at):
            match = _HARMLESS.match(line, at)
            plain = plain and match is not None
            step = len(match[0]) if match else 2 if line.startswith(("&>", "<<"), at) else 1
        elif character in _ENDS or character == "&":
            parts.append(line[start:at])
            start = at + 1
        at += step
    parts.append(line[start:])
    return [part.strip(_BLANKS) for part in parts if part.strip(_BLANKS)], plain and not quote


def _joins(line: str, at: int) -> bool:
    """Whether a line that goes on in the next one could make one token of two, such as `$` and `(`."""
    return line.startswith("\\\n", at) and (at == 0 or line[at - 1] not in _BLANKS)


def _dollar(line: str, at: int, plain: bool) -> tuple[int, bool]:
    """How far to go on behind a `$`, and whether all is plain still: names are, arithmetic is not."""
    if line.startswith("$$", at):
        return 2, plain
    if line.startswith("${", at):
        return 1, plain and _VARIABLE.match(line, at) is not None
    return 1, plain and not line.startswith("$[", at)


def _bare(command: str) -> str:
    """Without what stands before the program: keywords, variables, `sudo`."""
    at = 0
    while (match := _ASSIGNMENT.match(command, at) or _KEYWORD.match(command, at)) is not None:
        at = match.end()
    return command[at:]
