"""Decides about every tool call: by the configuration, by the operator's rules, or by asking the operator.

A call that waits parks its turn. The request is core's and has a key of message and call, so when this
process or core ends, the turn that comes again joins it.
"""

import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from hive_agent.backends.base import MCP_SERVER
from hive_agent.backends.tool_gate import ToolDecision
from hive_agent.link import Link
from hive_agent.status import Status
from hive_shared.errors import HiveError
from hive_shared.permissions import (
    EVERYTHING,
    LOOKING,
    PermissionOptions,
    ToolCall,
    Verdict,
    decide,
    denies,
    key_of,
)
from hive_shared.redact import PATTERNS
from hive_shared.wire import (
    PERMISSION_INPUT_MAX_CHARACTERS,
    TEXT_MAX_CHARACTERS,
    TOOL_NAME_MAX_CHARACTERS,
    AskPermission,
    Badge,
    ClosePermission,
    GetPermissionRules,
    PermissionRules,
    PermissionView,
)

log = logging.getLogger(__name__)

ASK_WAIT_SECONDS: Final = 120.0  # of one question to core; then it is asked again
RULES_SECONDS: Final = 2.0  # for core to tell its rules; then those that it told last hold
FIRST_RULES_SECONDS: Final = 60.0  # for core to tell them for the first time; until then no tool is used
MARK_FILE: Final = "hyperhive-conversation.json"
TEXT_KEPT_CHARACTERS: Final = 4000  # of one argument, where all of them are too long

UNKNOWN_RULES: Final = (
    "This call is not allowed for now: the hive's daemon has not told the operator's rules yet. "
    "Try it again in a minute, or do without."
)

NIX_STORE: Final = "/nix/store/"

_LOOKS_AT: Final = ("Glob", "Grep")
_PATH_OF: Final = {
    **dict.fromkeys(("Read", "Edit", "Write"), "file_path"),
    "NotebookEdit": "notebook_path",
    **dict.fromkeys(_LOOKS_AT, "path"),
}
_OWN = f"mcp__{MCP_SERVER}__"
_MARK = re.compile(r"[0-9a-f]{32}\Z")
_FOR_A_COMMAND_LINE = re.compile(r"[A-Za-z0-9_-]+(?:\([^\x00-\x1f\x7f-\x9f,()]{1,200}\))?\Z")


class Permissions:
    """One agent's policy. A `ToolGate`."""

    def __init__(
        self,
        link: Link,
        status: Status,
        note: Callable[[str], None],
        state_dir: Path,
        options: PermissionOptions | None,
        allowed: Sequence[str],
    ) -> None:
        """`allowed` is what the configuration allows besides `options`."""
        self._link = link
        self._status = status
        self._note = note
        self._options = options
        self._allowed = tuple(allowed)
        self._mark = _Mark(state_dir)
        self._rules: PermissionRules | None = None  # None: core never told them to this process
        self._message_id: int | None = None
        self._asked = False
        self._waiting: list[str] = []  # what is waited for, for the badge

    # --- turns ---

    async def turn_began(self, message_id: int, *, redelivered: bool) -> None:
        """From now on calls belong to the turn of this message. A backend that asks about none of them
        (`command_rules`) keeps to the operator's rules of now.
        """
        self._message_id, self._asked = message_id, redelivered  # an earlier process may have asked
        await self._current_rules()

    async def turn_ended(self) -> None:
        """What was decided for this turn is over, and nobody waits any more."""
        message_id, self._message_id = self._message_id, None
        if message_id is None or not self._asked:
            return
        try:
            await self._link.call(ClosePermission(message_id=message_id))
        except HiveError as error:
            log.warning("close_permission: %s", error.message)

    def new_session(self) -> None:
        """What was allowed for the conversation ends with it."""
        self._mark.renew()

    # --- the gate ---

    async def check(self, call: ToolCall, said: str) -> ToolDecision | None:
        """See `ToolGate`."""
        if call.tool.startswith(_OWN):
            return None
        rules = await self._current_rules()
        if rules is None:
            return ToolDecision(allowed=False, message=UNKNOWN_RULES)
        meant = where_it_leads(call)
        match self._verdict_of_both(call, meant, rules):
            case None:
                return None
            case Verdict.ALLOW:
                return ToolDecision(allowed=True)
            case Verdict.DENY:
                return ToolDecision(allowed=False, message=self._refusal(call, meant, rules))
            case Verdict.ASK:
                link = f"(a link to {meant.subject}) " if meant is not None else ""
                return await self._ask(call, link + said)

    def command_rules(self, allowed: Sequence[str], *, asks: bool) -> tuple[list[str], list[str]]:
        """See `ToolGate`."""
        if asks:
            return (list(allowed) if self._options is None else []), []
        before = list(allowed) if self._options is None else [*self._options.allow, *self._allowed]
        rules = self._rules or PermissionRules(deny=[EVERYTHING])  # unknown: any of them may be denied
        denied = [*(self._options.deny if self._options else ()), *rules.deny]
        # What cannot be said on a command line is not allowed, or denied with its whole tool.
        may = [rule for rule in (*before, *rules.allow) if _FOR_A_COMMAND_LINE.match(rule)]
        may_not = [rule if _FOR_A_COMMAND_LINE.match(rule) else rule.partition("(")[0] for rule in denied]
        if EVERYTHING in may_not:  # which no list of tools knows: then each by its name
            named = (rule.partition("(")[0] for rule in (*allowed, *may, *may_not, *LOOKING))
            return [], [tool for tool in dict.fromkeys(named) if tool != EVERYTHING]
        return may, may_not

    def _verdict_of_both(
        self, call: ToolCall, meant: ToolCall | None, rules: PermissionRules
    ) -> Verdict | None:
        """A link is denied as itself or as what it leads to; allowed as both."""
        as_written = self._verdict(call, rules)
        if meant is None or as_written is Verdict.DENY:
            return as_written
        as_meant = self._verdict(meant, rules)
        return as_meant if as_written is Verdict.ALLOW or as_meant is Verdict.DENY else as_written

    def _verdict(self, call: ToolCall, rules: PermissionRules) -> Verdict | None:
        """None where nothing is said of the call, and no policy is configured."""
        options = self._options
        if options is None:
            verdict = decide(call, allow=rules.allow, deny=rules.deny, default=Verdict.ASK)
            return None if verdict is Verdict.ASK else verdict
        return decide(
            call,
            allow=(*options.allow, *self._allowed, *rules.allow),
            deny=(*options.deny, *rules.deny),
            default=Verdict(options.default),
        )

    def _refusal(self, call: ToolCall, meant: ToolCall | None, rules: PermissionRules) -> str:
        by = [
            rule
            for rule in (*(self._options.deny if self._options else ()), *rules.deny)
            if _says_no(rule, call) or (meant is not None and _says_no(rule, meant))
        ]
        why = f": the rule {by[0]} denies it" if by else ""
        return (
            f"This call of {call.tool} is not allowed for this agent{why}. Find another way, or do without."
        )

    async def _current_rules(self) -> PermissionRules | None:
        """As core has them now; while it is away, as it had them last. None if it has never told them."""
        if self._link.connected or self._rules is None:
            patience = FIRST_RULES_SECONDS if self._rules is None else RULES_SECONDS
            try:
                asking = GetPermissionRules(session=self._mark.value)
                self._rules = await self._link.call(asking, patience_seconds=patience)
            except HiveError as error:
                log.warning("permission_rules: %s", error.message)
        return self._rules

    # --- asking ---

    async def _ask(self, call: ToolCall, said: str) -> ToolDecision:
        if self._message_id is None:
            return ToolDecision(allowed=False, message="Nothing can be asked for outside of a turn.")
        self._asked = True
        request = self._request(call, said, self._message_id)
        told = call if call.shown is None else replace(call, input=call.shown)
        what = PATTERNS.clean_text(f"{call.tool}: {told.subject or request.input}")
        with _Parked(self._status, self._waiting, what):
            self._note(f"waits for the operator: may it use {call.tool}?")
            try:
                view = await self._link.call(request)
                while not view.closed:
                    view = await self._link.call(request)
            except HiveError as error:
                return ToolDecision(allowed=False, message=f"This could not be asked for: {error.message}")
        self._note(f"{call.tool}: {_told(view)}")
        if view.closed != "allowed":
            return ToolDecision(allowed=False, message=_refused(view))
        await self._used(view)
        return ToolDecision(allowed=True)

    def _request(self, call: ToolCall, said: str, message_id: int) -> AskPermission:
        told = call.input if call.shown is None else call.shown
        shown, truncated = _shortened(told)
        described = told.get("description")
        reason = described if isinstance(described, str) and described else said
        return AskPermission(
            key=key_of(message_id, call),
            session=self._mark.value,
            message_id=message_id,
            tool=_text(call.tool, TOOL_NAME_MAX_CHARACTERS) or "?",
            input=shown,
            truncated=truncated or told != call.input,
            cwd=_text(call.cwd, TEXT_MAX_CHARACTERS),
            reason=_text(reason, TEXT_MAX_CHARACTERS),
            ttl_seconds=self._options.ask_timeout_seconds if self._options else None,
            wait_seconds=ASK_WAIT_SECONDS,
        )

    async def _used(self, view: PermissionView) -> None:
        """The same call, once more, is another one to ask for."""
        try:
            await self._link.call(ClosePermission(permission_id=view.id))
        except HiveError as error:
            log.warning("close_permission: %s", error.message)


class _Parked:
    """While something waits, the badge says so; several can wait at a time."""

    def __init__(self, status: Status, waiting: list[str], what: str) -> None:
        self._status, self._waiting, self._what = status, waiting, what

    def __enter__(self) -> None:
        self._waiting.append(self._what)
        self._show()

    def __exit__(self, *_: object) -> None:
        self._waiting.remove(self._what)
        self._show()

    def _show(self) -> None:
        if self._waiting:
            self._status.show(Badge.WAITING_FOR_YOU, self._waiting[0])
        elif self._status.turn is not None:
            self._status.show(Badge.THINKING)


class _Mark:
    """What tells one conversation of this agent from the next, kept in its state."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / MARK_FILE
        self.value = self._load() or self.renew()

    def renew(self) -> str:
        self.value = secrets.token_hex(16)
        fresh = self._file.with_suffix(".new")
        try:
            fresh.write_text(json.dumps({"mark": self.value}))
            fresh.replace(self._file)
        except OSError as error:
            log.warning("%s: %s; what is allowed for the session ends with this process", self._file, error)
        return self.value

    def _load(self) -> str | None:
        try:
            mark = json.loads(self._file.read_text())["mark"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return mark if isinstance(mark, str) and _MARK.match(mark) else None


def where_it_leads(call: ToolCall) -> ToolCall | None:
    """The call with the file that links lead to in the place of its path; None where that is the same.

    What is in the Nix store counts as where the link is: nobody can change it, and on NixOS all of /etc leads
    there. Links can be changed between this look and the call: rules guide agents, the container holds them.
    """
    name = _PATH_OF.get(call.tool)
    given = call.input.get(name, "") if name is not None else None
    if name is None or not isinstance(given, str) or (call.tool not in _LOOKS_AT and not given):
        return None
    try:
        real = os.path.realpath(os.path.join(call.cwd or "/", given))
    except (OSError, ValueError):
        return None
    meant = replace(call, input={**call.input, name: real})
    if meant.subject == call.subject or real.startswith(NIX_STORE):
        return None
    return meant


def _says_no(rule: str, call: ToolCall) -> bool:
    try:
        return denies(rule, call)
    except HiveError:
        return False


def _refused(view: PermissionView) -> str:
    match view.closed:
        case "expired":
            return view.message
        case "denied":
            return (
                f"The operator denied this: {view.message}" if view.message else "The operator denied this."
            )
    return "This request was withdrawn."


def _told(view: PermissionView) -> str:
    if view.closed == "allowed":
        return f"allowed ({view.scope})" if view.scope else "allowed by a rule"
    return f"{view.closed}: {view.message}" if view.message else view.closed


def _shortened(arguments: Any) -> tuple[str, bool]:
    """As JSON for core, and whether that had to be cut."""
    whole = _json(arguments)
    if len(whole) <= PERMISSION_INPUT_MAX_CHARACTERS:
        return whole, False
    cut = {
        str(name)[:100]: value if len(_json(value)) <= TEXT_KEPT_CHARACTERS else _cut(value)
        for name, value in list(arguments.items())[:20]
    }
    shown = _json(cut)
    while len(shown) > PERMISSION_INPUT_MAX_CHARACTERS:  # each turn leaves one out
        cut.popitem()
        shown = _json(cut)
    return shown, True


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else _json(value)
    kept = text[: TEXT_KEPT_CHARACTERS // 2]
    return f"{kept}\n… ({len(text) - len(kept)} more characters)"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace").decode()


def _text(text: str, most: int) -> str:
    return text.encode("utf-8", "replace").decode()[:most]
