"""The interface of a backend: what the harness asks of whatever thinks in a turn (SPEC section 9).

The harness knows nothing else about a backend. It writes the MCP configuration, the settings and
the system prompt, calls `start()`, and then runs one turn at a time.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from hive_agent.backends.tool_gate import ToolGate
from hive_shared.agent_options import DEFAULT_TOOLS, HIVE_SERVER
from hive_shared.errors import NotAvailable
from hive_shared.events import TurnStats
from hive_shared.paths import ContainerPaths

BUILTIN_TOOLS = DEFAULT_TOOLS  # SPEC section 8
MCP_SERVER = HIVE_SERVER  # so tools read mcp__hyperhive__send (SPEC section 10)
IDLE_SECONDS = 900.0
RSS_MAX_BYTES = 1024 * 1024 * 1024


class Outcome(StrEnum):
    """How a turn ended. The harness decides by this alone what happens to the message."""

    OK = "ok"
    CANCELLED = "cancelled"  # somebody interrupted it; the session is still usable
    OVERFLOW = "overflow"  # the prompt no longer fits the context: compact, then retry once
    RATE_LIMITED = "rate_limited"  # or overloaded: wait until `resumes_at_ms`, then retry
    AUTH = "auth"  # the credentials are missing, wrong or expired
    FAILED = "failed"  # anything else; `note` says what


@dataclass(frozen=True)
class StreamLine:
    """One stream-json object as the backend printed it, for the live view."""

    raw: dict[str, Any]


@dataclass(frozen=True)
class TurnResult:
    """The end of a turn. `resumes_at_ms` (Unix) is set when a limit named the time it lifts."""

    outcome: Outcome
    note: str
    stats: TurnStats
    resumes_at_ms: int | None = None


BackendEvent = StreamLine | TurnResult


class LoginStage(StrEnum):
    """Where an interactive login is."""

    NONE = "none"
    STARTING = "starting"
    AWAITING_CODE = "awaiting_code"
    VERIFYING = "verifying"
    FAILED = "failed"
    DONE = "done"


class Login(Protocol):
    """Whether the backend has credentials, and the conversation that gets them."""

    def needed(self) -> bool:
        """Whether no turn can run before somebody logs in. Cheap: a file look-up at most."""
        ...

    def state(self) -> dict[str, Any]:
        """`{"needed", "stage", "url", "message"}`, as the agent page shows it."""
        ...

    async def start(self) -> None:
        """Begin a login; ends an earlier one. Returns when the URL is known or it has failed."""
        ...

    async def code(self, text: str) -> None:
        """Hand in the code that the person pasted; returns when it is accepted or refused.

        Raises `Conflict` when none is awaited, `BadRequest` for what cannot be one.
        """
        ...

    async def cancel(self) -> None:
        """End a login that is under way; nothing happens when none is."""
        ...


class NoLogin:
    """The login of a backend that needs none."""

    def needed(self) -> bool:
        return False

    def state(self) -> dict[str, Any]:
        return {"needed": False, "stage": LoginStage.NONE.value, "url": None, "message": ""}

    async def start(self) -> None:
        raise NotAvailable("this backend needs no login")

    async def code(self, text: str) -> None:
        raise NotAvailable("this backend needs no login")

    async def cancel(self) -> None:
        """Nothing is under way."""


@dataclass(frozen=True)
class BackendConfig:
    """What a backend is told about its agent. `claude` is None when the CLI is not on this machine."""

    paths: ContainerPaths
    agent: str
    role: str
    model: str
    claude: Path | None = None
    builtin_tools: Sequence[str] = BUILTIN_TOOLS  # offered and allowed; patterns such as `Bash(git *)` too
    mcp_tools: Sequence[str] = ()  # bare names of the hive's own tools: "send", "recv", …
    extra_mcp_tools: Sequence[str] = ()  # what is allowed of other servers: `mcp__git`, `mcp__git__log`
    idle_seconds: float = IDLE_SECONDS  # a warm process unused for that long is closed
    rss_max_bytes: int = RSS_MAX_BYTES  # of the process tree; above it the process is replaced after the turn
    environment: Mapping[str, str] = field(default_factory=dict)  # on top of the backend's own minimum
    gate: ToolGate | None = None  # asked before every tool call, where there is one


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do beside running turns; its page says what it cannot."""

    login: bool = True  # from the page; without it, a key is the operator's to give
    compact: bool = True
    models: bool = True  # it has a list of models to choose from; without it, any name may be tried
    cost: bool = True  # turns say what they cost


class Backend(Protocol):
    """One agent's backend. Turns never overlap: the harness runs one at a time."""

    name: str
    label: str
    is_model: bool
    capabilities: Capabilities

    @property
    def login(self) -> Login: ...

    @property
    def model(self) -> str:
        """The model of the next turn."""
        ...

    @property
    def warm(self) -> bool:
        """Whether a process stands ready, so that the next turn starts at once."""
        ...

    async def start(self) -> None:
        """Cheap, and never raises for a backend that is out of order: turns say what is wrong."""
        ...

    def run_turn(self, prompt: str) -> AsyncIterator[BackendEvent]:
        """Everything the turn prints, then exactly one `TurnResult`, whatever happens.

        Closing the iterator early (or cancelling its consumer) stops the turn.
        """
        ...

    def compact(self) -> AsyncIterator[BackendEvent]:
        """Summarise the conversation so far; events as in `run_turn`."""
        ...

    async def interrupt(self) -> bool:
        """Stop the running turn, which then ends as `CANCELLED`. False if none was running."""
        ...

    async def set_model(self, model: str) -> None:
        """Use `model` from the next turn on (a warm process is told at once)."""
        ...

    async def new_session(self) -> None:
        """Forget the conversation; the next turn starts a fresh one."""
        ...

    async def close(self) -> None:
        """Stop a running turn and every process. The backend is of no more use."""
        ...
