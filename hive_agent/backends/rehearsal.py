"""A backend that is not a model: it follows plain commands, offline and always the same way (SPEC section 9).

For trying out, drills and tests. It reads the wake prompt, uses the very MCP tools that a model
would, and prints the same stream-json lines. What it follows: commands of the operator, of the
manager and of its own reminders; a peer can only ask for an answer ("please answer: …"), and a
message that is itself a reply is never answered, so two rehearsals cannot talk for ever.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count, islice, zip_longest
from typing import Any, Protocol

from hive_agent.backends.base import (
    MCP_SERVER,
    BackendConfig,
    BackendEvent,
    Capabilities,
    Login,
    NoLogin,
    Outcome,
    StreamLine,
    TurnResult,
)
from hive_agent.backends.rehearsal_edits import ConfigEditor, EditFailed
from hive_agent.mcp_client import connected
from hive_agent.wake import Woken, read_wake_prompt
from hive_shared.errors import HiveError
from hive_shared.events import TurnStats
from hive_shared.names import MANAGER, OPERATOR, SYSTEM

MODEL = "rehearsal"
WAIT_MAX_SECONDS = 600.0
CUTS_MAX = 200  # commands of one message
NOTES = "notes.md"
NOTES_SHOWN_CHARACTERS = 4000
ABOUT = "I am a rehearsal, not a model: I follow a few plain commands."
KNOWN = (
    "send NAME TEXT · tell NAME: TEXT · broadcast TEXT · reply TEXT · "
    "ask the operator whether … (options: a, b) (within N seconds) · cancel question N · remember TEXT · "
    "notes · "
    "remind me in N seconds to … · next turn: TEXT · wait N · recv · whoami · who is here"
)
KNOWN_TO_MANAGER = (
    " · spawn NAME [from REF] [because …] · prepare NAME · submit NAME [because …] · "
    "apply REF to NAME [because …] · set variable FOO=bar for NAME [because …] (edits agent.nix, commits "
    "and submits) · draft variable FOO=bar for NAME (edits and commits) · break NAME [because …] (a commit "
    "that cannot be built) · start|kill|restart|update NAME · agents · logs NAME"
)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}

_SPLIT = re.compile(r"(?:\s*(?:\n|;|,?\s(?:and\s+)?then\s)\s*)+", re.IGNORECASE)
_NUMBER = r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>s|m|h)?[a-z]*"
_OCCASION = re.compile(r"^\[(?:reminder|next turn|schedule [^\]]*)\]")  # what core writes before it
_PLEASE_ANSWER = re.compile(r"\bplease\s+answer\b[:,]?\s*(?P<text>.*)", re.IGNORECASE | re.DOTALL)


class Tools(Protocol):
    """The hive's tools, as an MCP client has them."""

    async def call(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        """The text of the result, and whether it is an error."""
        ...


@dataclass(frozen=True)
class Command:
    """One understood command: a tool to call, or something the rehearsal does itself."""

    verb: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Form:
    """A way to say a command."""

    pattern: re.Pattern[str]
    read: Callable[[re.Match[str]], Command]
    for_manager: bool = False


def _form(pattern: str, read: Callable[[re.Match[str]], Command], *, for_manager: bool = False) -> _Form:
    return _Form(re.compile(pattern + r"\Z", re.IGNORECASE | re.DOTALL), read, for_manager)


def _text(match: re.Match[str]) -> str:
    text: str = match["text"].strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if quoted else text


def _send(match: re.Match[str]) -> Command:
    return Command("send", {"to": match["to"].lower(), "body": _text(match)})


def _ask(match: re.Match[str]) -> Command:
    """A question to the operator, or to the agent that is named."""
    listed = [option.strip() for option in (match["options"] or "").split(",")]
    arguments: dict[str, Any] = {"question": _text(match)}
    if any(listed):
        arguments["options"] = [option for option in listed if option]
    if match["number"] is not None:
        arguments["ttl_seconds"] = _seconds(match)
    to = match.groupdict().get("to")
    return (
        Command("ask_operator", arguments) if to is None else Command("ask", {"to": to.lower()} | arguments)
    )


def _answer(match: re.Match[str]) -> Command:
    return Command("answer", {"id": int(match["question"]), "answer": _text(match)})


def _cancel_reminder(match: re.Match[str]) -> Command:
    return Command("cancel_loose_end", {"kind": "reminder", "id": int(match["number"])})


def _seconds(match: re.Match[str]) -> float:
    return float(match["number"]) * _UNIT_SECONDS[(match["unit"] or "s").lower()]


def _of_name(verb: str) -> Callable[[re.Match[str]], Command]:
    return lambda match: Command(verb, {"name": match["name"].lower()})


def _named(match: re.Match[str]) -> dict[str, Any]:
    return {"name": match["name"].lower(), "note": match["note"] or ""}


def _variable(match: re.Match[str]) -> dict[str, Any]:
    return {"variable": match["variable"], "value": match["value"].strip()}


def _apply(match: re.Match[str], ref: str) -> Command:
    arguments = {"agent": match["name"].lower(), "commit_ref": ref, "note": match["note"] or ""}
    return Command("request_apply_commit", arguments)


_NAME = r"(?P<name>[\w-]+)"
_BECAUSE = r"(?:\s+because\s+(?P<note>.+))?"
_VARIABLE = r"(?P<variable>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*?)"
_TO = r"(?P<to>[a-zA-Z][\w-]*|\*)"
_FORMS = (
    _form(
        r"(?:send|write)\s+(?:a\s+message\s+)?(?:to\s+)?(?:the\s+)?" + _TO + r"\s*:?\s+(?P<text>.+)", _send
    ),
    _form(r"(?:tell|message)\s+(?:the\s+)?" + _TO + r"\s*:?\s+(?P<text>.+)", _send),
    _form(r"broadcast\s*:?\s+(?P<text>.+)", lambda m: Command("send", {"to": "*", "body": _text(m)})),
    _form(
        r"answer\s+(?:question\s+)?(?P<question>\d{1,15})\s*(?:with\b|:)\s*:?\s*(?P<text>.+)",
        _answer,
    ),
    _form(r"(?:reply|answer)\s*:?\s+(?P<text>.+)", lambda m: Command("reply", {"body": _text(m)})),
    _form(
        r"ask\s+(?:the\s+)?operator\s*:?\s+(?P<text>.+?)(?:\s*\(options:\s*(?P<options>[^)]*)\))?"
        rf"(?:\s*\(within\s+{_NUMBER}\))?",
        _ask,
    ),
    _form(
        r"ask\s+" + _TO.replace("|\\*", "") + r"\s*(?::|(?=\bwhether\b|\bif\b))\s*(?P<text>.+?)"
        r"(?:\s*\(options:\s*(?P<options>[^)]*)\))?"
        rf"(?:\s*\(within\s+{_NUMBER}\))?",
        _ask,
    ),
    _form(
        r"cancel\s+(?:the\s+)?reminder\s+(?P<number>\d{1,15})",
        _cancel_reminder,
    ),
    _form(r"(?:(?:your|my)\s+)?loose\s+ends\??", lambda _: Command("get_loose_ends")),
    _form(
        r"cancel\s+(?:the\s+)?question\s+(?P<number>\d{1,15})",
        lambda m: Command("cancel_question", {"question_id": int(m["number"])}),
    ),
    _form(r"remember\s*:?\s+(?P<text>.+)", lambda m: Command("remember", {"text": _text(m)})),
    _form(r"(?:notes|show\s+(?:your\s+)?notes|what\s+do\s+you\s+remember\??)", lambda _: Command("notes")),
    _form(
        rf"remind\s+me\s+in\s+{_NUMBER}\s+(?:to\s+)?(?P<text>.+)",
        lambda m: Command("remind", {"after_seconds": _seconds(m), "body": _text(m)}),
    ),
    _form(r"next\s+turn\s*:?\s+(?P<text>.+)", lambda m: Command("request_next_turn", {"note": _text(m)})),
    _form(rf"wait\s+(?:for\s+)?{_NUMBER}", lambda m: Command("wait", {"seconds": _seconds(m)})),
    _form(r"(?:recv|check\s+(?:your\s+)?inbox)", lambda _: Command("recv", {"max": 10})),
    _form(r"(?:whoami|who\s+am\s+i\??|who\s+are\s+you\??)", lambda _: Command("whoami")),
    _form(r"who(?:\s+i|')s\s+here\??", lambda _: Command("whoami")),
    _form(r"say\s*:?\s+(?P<text>.+)", lambda m: Command("say", {"text": _text(m)})),
    _form(r"fail", lambda _: Command("fail")),
    _form(
        rf"spawn\s+{_NAME}(?:\s+from\s+(?P<ref>\S+))?{_BECAUSE}",
        lambda m: Command("request_spawn", _named(m) | ({"commit_ref": m["ref"]} if m["ref"] else {})),
        for_manager=True,
    ),
    _form(rf"prepare\s+{_NAME}", _of_name("prepare_spawn"), for_manager=True),
    _form(rf"submit\s+{_NAME}{_BECAUSE}", lambda m: _apply(m, "HEAD"), for_manager=True),
    _form(rf"apply\s+(?P<ref>\S+)\s+to\s+{_NAME}{_BECAUSE}", lambda m: _apply(m, m["ref"]), for_manager=True),
    _form(
        rf"set\s+variable\s+{_VARIABLE}\s+for\s+{_NAME}{_BECAUSE}",
        lambda m: Command("set", _named(m) | _variable(m)),
        for_manager=True,
    ),
    _form(
        rf"draft\s+variable\s+{_VARIABLE}\s+for\s+{_NAME}",
        lambda m: Command("draft", {"name": m["name"].lower()} | _variable(m)),
        for_manager=True,
    ),
    _form(rf"break\s+{_NAME}{_BECAUSE}", lambda m: Command("break", _named(m)), for_manager=True),
    _form(rf"start\s+{_NAME}", _of_name("start"), for_manager=True),
    _form(rf"(?:kill|stop)\s+{_NAME}", _of_name("kill"), for_manager=True),
    _form(rf"restart\s+{_NAME}", _of_name("restart"), for_manager=True),
    _form(rf"(?:update|rebuild)\s+{_NAME}", _of_name("update"), for_manager=True),
    _form(r"(?:list\s+)?agents", lambda _: Command("agents"), for_manager=True),
    _form(rf"logs\s+(?:of\s+)?{_NAME}", _of_name("logs"), for_manager=True),
)
# Whoever asks for these wants to see what came out.
_TOLD_TO_ASKER = frozenset(
    {"whoami", "notes", "agents", "logs", "prepare_spawn", "request_apply_commit", "cancel_question"}
    | {"ask", "answer", "get_loose_ends", "cancel_loose_end"}
)


def read_command(text: str, role: str) -> Command | None:
    """The command that `text` is, or None."""
    text = text.strip()
    return _as_command(text, role) or _as_command(text.rstrip(".!"), role)


def _as_command(text: str, role: str) -> Command | None:
    for form in _FORMS:
        if form.for_manager and role != "manager":
            continue
        match = form.pattern.match(text)
        if match is not None:
            return form.read(match)
    return None


def read_commands(body: str, role: str) -> tuple[list[Command], list[str]]:
    """The commands in `body` in order, and what was not understood."""
    commands, unknown = [], []
    for part in _parts(body, role):
        command = read_command(part, role)
        if command is None:
            unknown.append(part)
        else:
            commands.append(command)
    return commands, unknown


def _parts(body: str, role: str) -> list[str]:
    """`body` cut at new lines, `;` and "then", but only where a command begins or ends.

    "send bob first wash, then dry" is one message.
    """
    body = body.strip(" \t\r\n;")
    parts: list[str] = []
    begin = 0
    cuts = list(islice(_SPLIT.finditer(body), CUTS_MAX))
    for cut, following in zip_longest(cuts, cuts[1:]):
        end = following.start() if following else len(body)
        if read_command(body[cut.end() : end], role) or (
            read_command(body[begin : cut.start()], role) and not read_command(body[begin:end], role)
        ):
            parts.append(body[begin : cut.start()].strip())
            begin = cut.end()
    parts.append(body[begin:].strip())
    return [part for part in parts if part]


class RehearsalBackend:
    """Follows commands. Obeys `base.Backend`."""

    name = "rehearsal"
    label = "rehearsal (not a model)"
    is_model = False
    capabilities = Capabilities(login=False, compact=False, models=False, cost=False)

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self._login: Login = NoLogin()
        self._playing: asyncio.Task[None] | None = None

    @property
    def login(self) -> Login:
        return self._login

    @property
    def model(self) -> str:
        return MODEL

    @property
    def warm(self) -> bool:
        return True

    async def start(self) -> None:
        """Nothing to prepare."""

    async def run_turn(self, prompt: str) -> AsyncIterator[BackendEvent]:
        """Act on the message in `prompt`."""
        play = _Play(self._config, prompt)
        async for event in self._stream(play, lambda: self._perform(play)):
            yield event

    async def compact(self) -> AsyncIterator[BackendEvent]:
        """There is nothing to compact, which is said."""
        play = _Play(self._config, "")

        async def say() -> None:
            play.say("A rehearsal remembers nothing between turns: there is nothing to compact.")

        async for event in self._stream(play, say):
            yield event

    async def interrupt(self) -> bool:
        if self._playing is None or self._playing.done():
            return False
        self._playing.cancel()
        return True

    async def set_model(self, model: str) -> None:
        """It has no model to change; the choice is kept for a backend that has."""

    async def new_session(self) -> None:
        """It has no session."""

    async def close(self) -> None:
        if self._playing is not None:
            self._playing.cancel()
            await asyncio.gather(self._playing, return_exceptions=True)

    async def _perform(self, play: "_Play") -> None:
        async with connected(self._config.paths.tools_socket) as tools:
            await play.perform(tools)

    async def _stream(
        self, play: "_Play", perform: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[BackendEvent]:
        """What `perform` says, as a task of its own so that it can be interrupted; then the result."""

        async def run() -> None:
            try:
                await perform()
            finally:
                play.lines.put_nowait(None)

        self._playing = playing = asyncio.create_task(run(), name="rehearsal-turn")
        try:
            while (line := await play.lines.get()) is not None:
                yield StreamLine(line)
            result = await _result(play, playing)
            yield StreamLine(play.result_line(result))
            yield result
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
            self._playing = None


async def _result(play: "_Play", playing: asyncio.Task[None]) -> TurnResult:
    await asyncio.wait({playing})
    if playing.cancelled():
        return play.result(Outcome.CANCELLED, "interrupted")
    error = playing.exception()
    if error is None:
        return play.result(Outcome.OK, "")
    if isinstance(error, Failed | HiveError | OSError):
        return play.result(Outcome.FAILED, str(error))
    raise error


class Failed(Exception):
    """The command `fail`, for drills."""


class _Play:
    """One turn: the lines it prints and what it did."""

    def __init__(self, config: BackendConfig, prompt: str) -> None:
        self.lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._config = config
        self._prompt = prompt
        self._began_ms = time.time_ns() // 1_000_000
        self._numbers = count(1)
        self._calls: dict[str, int] = {}
        self._last_said = ""

    async def perform(self, tools: Tools) -> None:
        """Act on the prompt."""
        woken = read_wake_prompt(self._prompt)
        if woken is None:
            self.say(f"{ABOUT} I see no message in this prompt.")
        elif woken.sender == SYSTEM:
            self.say(f"Noted, from the hive: {woken.body}")
        elif woken.asks is not None:
            await self._asked(tools, woken)
        elif woken.in_reply_to is not None:
            self.say(f"{woken.sender} answered message {woken.in_reply_to}. Replies are not answered.")
        elif woken.sender in (OPERATOR, MANAGER, self._config.agent):
            await self._follow(tools, woken)
        else:
            await self._answer_peer(tools, woken)

    async def _follow(self, tools: Tools, woken: Woken) -> None:
        body = _OCCASION.sub("", woken.body).strip()
        commands, unknown = read_commands(body, self._config.role)
        asked = _PLEASE_ANSWER.match(body)
        if not commands and asked is not None:
            await self._reply(tools, woken, self._greeting(asked["text"]))
            return
        for command in commands:
            await self._do(tools, command, woken)
        if unknown and woken.sender == OPERATOR:
            await self._reply(tools, woken, self._not_understood(unknown))
        elif unknown:
            self.say(self._not_understood(unknown))

    async def _asked(self, tools: Tools, woken: Woken) -> None:
        """A question of another agent: answered when somebody who may give commands says what with."""
        asked = _PLEASE_ANSWER.search(woken.body)
        if asked is None:
            self.say(f"{woken.sender} asks question {woken.asks}: “answer {woken.asks} with …” answers it.")
            return
        await self._call(tools, "answer", {"id": woken.asks, "answer": self._greeting(asked["text"])})

    async def _answer_peer(self, tools: Tools, woken: Woken) -> None:
        asked = _PLEASE_ANSWER.search(woken.body)
        if asked is None:
            self.say(f"{woken.sender} wrote. It asks for no answer ('please answer: …'), so none is sent.")
            return
        await self._reply(tools, woken, self._greeting(asked["text"]))

    async def _do(self, tools: Tools, command: Command, woken: Woken) -> None:
        match command.verb:
            case "reply":
                await self._reply(tools, woken, command.arguments["body"])
            case "say":
                self.say(command.arguments["text"])
            case "wait":
                await self._wait(command.arguments["seconds"])
            case "remember":
                self._remember(command.arguments["text"])
            case "notes":
                await self._tell(tools, woken, self._notes(), failed=False)
            case "fail":
                raise Failed("told to fail")
            case "set" | "draft" | "break":
                await self._edit(tools, command, woken)
            case verb:
                await self._use(tools, verb, command.arguments, woken)

    async def _use(self, tools: Tools, tool: str, arguments: dict[str, Any], woken: Woken) -> None:
        text, failed = await self._call(tools, tool, arguments)
        if failed or tool in _TOLD_TO_ASKER:
            await self._tell(tools, woken, text, failed=failed)

    async def _edit(self, tools: Tools, command: Command, woken: Woken) -> None:
        """Change an agent's configuration as a manager would, and submit it unless it is a draft."""
        name = command.arguments["name"]
        editing = ConfigEditor(self._config.paths.agents / name / "config", self._config.environment)
        try:
            if command.verb == "break":
                done = await editing.break_it()
            else:
                done = await editing.set_variable(command.arguments["variable"], command.arguments["value"])
        except EditFailed as error:
            await self._tell(tools, woken, str(error), failed=True)
            return
        self.say(done)
        if command.verb != "draft":
            submitted = {"agent": name, "commit_ref": "HEAD", "note": command.arguments["note"]}
            await self._use(tools, "request_apply_commit", submitted, woken)

    async def _tell(self, tools: Tools, woken: Woken, text: str, *, failed: bool) -> None:
        """Show a person what came out; for anybody else it stays on the live page."""
        if woken.sender == OPERATOR:
            await self._reply(tools, woken, f"That failed: {text}" if failed else text)
        else:
            self.say(text)

    async def _reply(self, tools: Tools, woken: Woken, text: str) -> None:
        if woken.sender == self._config.agent:
            self.say(text)
            return
        await self._call(tools, "send", {"to": woken.sender, "body": text, "in_reply_to": woken.id})

    async def _call(self, tools: Tools, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        use = f"rehearsal-{time.time_ns():x}-{next(self._numbers)}"
        full_name = f"mcp__{MCP_SERVER}__{name}"
        self._calls[full_name] = self._calls.get(full_name, 0) + 1
        self._assistant({"type": "tool_use", "id": use, "name": full_name, "input": arguments})
        text, failed = await tools.call(name, arguments)
        content = [{"type": "text", "text": text}]
        block = {"type": "tool_result", "tool_use_id": use, "content": content, "is_error": failed}
        self.lines.put_nowait({"type": "user", "message": {"role": "user", "content": [block]}})
        return text, failed

    async def _wait(self, seconds: float) -> None:
        seconds = min(seconds, WAIT_MAX_SECONDS)
        self.say(f"Waiting {seconds:g} seconds.")
        await asyncio.sleep(seconds)

    def _remember(self, text: str) -> None:
        with (self._config.paths.state / NOTES).open("a", encoding="utf-8") as notes:
            notes.write(f"- {text}\n")
        self.say(f"Remembered in {NOTES}: {text}")

    def _notes(self) -> str:
        try:
            text = (self._config.paths.state / NOTES).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            text = ""
        return text[-NOTES_SHOWN_CHARACTERS:].strip() or "I remember nothing yet."

    def _greeting(self, question: str) -> str:
        asked = question.strip()
        return f'You asked: "{asked[:500]}". {ABOUT}' if asked else ABOUT

    def _not_understood(self, unknown: list[str]) -> str:
        quoted = "; ".join(part[:200] for part in unknown)
        more = KNOWN_TO_MANAGER if self._config.role == "manager" else ""
        return f'{ABOUT} I did not understand: "{quoted}". What I understand: {KNOWN}{more}'

    def say(self, text: str) -> None:
        """Print text, as a model would."""
        self._last_said = text
        self._assistant({"type": "text", "text": text})

    def result(self, outcome: Outcome, note: str) -> TurnResult:
        """The end of the turn."""
        now_ms = time.time_ns() // 1_000_000
        stats = TurnStats(
            started_at_ms=self._began_ms,
            duration_ms=now_ms - self._began_ms,
            model=MODEL,
            outcome=outcome.value,
            tools=self._calls,
        )
        return TurnResult(outcome, note, stats)

    def result_line(self, result: TurnResult) -> dict[str, Any]:
        """The `result` object that ends the stream of a turn."""
        well = result.outcome is Outcome.OK
        return {
            "type": "result",
            "subtype": "success" if well else "error_during_execution",
            "is_error": not well,
            "duration_ms": result.stats.duration_ms,
            "num_turns": 1,
            "result": self._last_said if well else result.note,
            "total_cost_usd": 0.0,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }

    def _assistant(self, block: dict[str, Any]) -> None:
        message = {"role": "assistant", "model": MODEL, "content": [block]}
        self.lines.put_nowait({"type": "assistant", "message": message})
