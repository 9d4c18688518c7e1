"""What every command of the CLI has in common: the shared options, exit codes, and how errors are told.

A command is a function whose first parameter is a `Hive`: the daemon that is meant, and how to
print. The shared options are added to each of them and to the program itself, so that
`hive-c0re --json list` and `hive-c0re list --json` are the same, in `--help` and in completion too.
"""

import asyncio
import functools
import inspect
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from hive_core import cli_output
from hive_core.cli_output import ReaderGone
from hive_core.cli_target import BadConfiguration, Target, find_target
from hive_shared import wire
from hive_shared.client import Client, NotReachable
from hive_shared.errors import HiveError
from hive_shared.status_words import words_of

R = TypeVar("R", bound=wire.Model)
T = TypeVar("T")
PROGRESS_SECONDS = 0.3  # between two looks at what a long operation has reached


class ExitCode(IntEnum):
    """What the exit code of every command means (SPEC section 13)."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_REACHABLE = 3
    INTERRUPTED = 130


EXIT_CODES_HELP = (
    "Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the daemon is not reachable, "
    "130 interrupted (Ctrl-C)."
)


class UsageProblem(Exception):
    """The command line cannot mean anything; the text says what and what to write instead."""


class Failed(Exception):
    """What was asked for was done and ended badly; the result has been printed already."""


@dataclass(frozen=True)
class SharedOptions:
    """The options that every command takes, before or after its name."""

    json: bool = False
    root: Path | None = None
    socket: Path | None = None
    config: Path | None = None

    def over(self, outer: "SharedOptions") -> "SharedOptions":
        """These, and where they say nothing, what was given before the command's name."""
        return SharedOptions(
            json=self.json or outer.json,
            root=self.root or outer.root,
            socket=self.socket or outer.socket,
            config=self.config or outer.config,
        )

    def target(self) -> Target:
        return find_target(root=self.root, socket=self.socket, config=self.config)


# `readable=False`: whether they can be used shows in using them, and is then told with what to do.
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON: the result as the daemon gave it.")]
RootOption = Annotated[
    Path | None,
    typer.Option("--root", metavar="DIR", readable=False, help="A whole hive under DIR, such as ./.hive."),
]
SocketOption = Annotated[
    Path | None,
    typer.Option(
        "--socket", metavar="PATH", readable=False, help="The host socket of the daemon to talk to."
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Configuration file (TOML); also HIVE_CONFIG.",
    ),
]
_SHARED: tuple[tuple[str, Any, Any], ...] = (
    ("json", JsonOption, False),
    ("root", RootOption, None),
    ("socket", SocketOption, None),
    ("config", ConfigOption, None),
)


class Hive:
    """The hive a command works on, and the one way commands ask it and print."""

    def __init__(self, options: SharedOptions) -> None:
        self.options = options
        self.target = options.target()

    @property
    def json(self) -> bool:
        return self.options.json

    def show(self, request: wire.Request[R], table: Callable[[R], None]) -> R:
        """Ask, print, and return the answer."""
        result = self.ask(request)
        self.print(result, table)
        return result

    def print(self, result: R, table: Callable[[R], None]) -> None:
        if self.json:
            cli_output.put_json(result)
        else:
            table(result)

    def ask(self, request: wire.Request[R]) -> R:
        """The answer to one request."""

        async def one(client: Client) -> R:
            return await client.call(request)

        return self.talk(one)

    def talk(self, conversation: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        """Run `conversation` on a connection of its own; raises `Failed` if an answer makes no sense."""

        async def connected() -> T:
            async with Client(self.target.socket) as client:
                return await conversation(client)

        try:
            return asyncio.run(connected())
        except ValidationError as error:
            what = wire.bad_field(error).message
            raise Failed(
                f"the daemon's answer cannot be read ({what}); it may be of another version: restart it"
            ) from error

    def follow(self, request: wire.Request[Any], show: Callable[[Any], None]) -> None:
        """Print each item as it comes, until the daemon ends it, Ctrl-C, or nobody reads our output."""
        one = cli_output.put_json_line if self.json else show

        async def reading(client: Client) -> None:
            async for item in _until_reader_goes(client.follow(request)):
                if request.item is not None and isinstance(item, request.item):
                    one(item)

        self.talk(reading)

    def show_progress(self, request: wire.Request[R], name: str | None, table: Callable[[R], None]) -> R:
        """As `show`, telling on stderr what becomes of agent `name` while the daemon works on it.

        Without a name: what changes on any agent.
        """

        async def both(client: Client) -> R:
            watching = asyncio.create_task(_tell_states(client, name), name="progress")
            try:
                return await client.call(request)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

        result = self.talk(both)
        self.print(result, table)
        return result


async def _tell_states(client: Client, name: str | None) -> None:
    states: dict[str, wire.AgentState] = {}
    told: dict[str, str] = {}
    if name is None:
        states = {agent.name: agent.state for agent in (await client.call(wire.ListAgents())).agents}
    while True:
        for agent in (await client.call(wire.ListAgents())).agents:
            if name not in (None, agent.name) or states.get(agent.name) == agent.state:
                continue  # what it does by itself is not what is waited for
            states[agent.name] = agent.state
            if told.get(agent.name) != words_of(agent):
                told[agent.name] = words_of(agent)
                cli_output.tell(f"{agent.name}: {words_of(agent)}")
        await asyncio.sleep(PROGRESS_SECONDS)


async def _until_reader_goes(items: AsyncIterator[T]) -> AsyncIterator[T]:
    """`items`, ended by `ReaderGone` as soon as the pipe on stdout closes, also while nothing comes."""
    gone = asyncio.Event()
    watched = _watch_stdout(gone)
    leaving = asyncio.create_task(gone.wait(), name="stdout-watch")
    coming: asyncio.Task[Any] = leaving
    try:
        while True:
            coming = asyncio.create_task(_next(items), name="next-item")
            await asyncio.wait((coming, leaving), return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                raise ReaderGone
            if not (found := await coming):
                return
            yield found[0]
    finally:
        leaving.cancel()
        coming.cancel()
        await asyncio.gather(leaving, coming, return_exceptions=True)
        if watched is not None:
            asyncio.get_running_loop().remove_reader(watched)


async def _next(items: AsyncIterator[T]) -> list[T]:
    """The next item, or nothing at the end."""
    async for item in items:
        return [item]
    return []


def _watch_stdout(gone: asyncio.Event) -> int | None:
    """Set `gone` when the reader of the pipe on stdout leaves; returns the descriptor, if it is a pipe."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return None
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return None
    # The writing end of a pipe is never readable; the loop reports its error condition as if it were.
    asyncio.get_running_loop().add_reader(descriptor, gone.set)
    return descriptor


# --- registering ------------------------------------------------------------


def command(app: typer.Typer, name: str, panel: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command of `app`: with the shared options, and errors told in one line.

    `panel` is the heading it stands under in `--help`.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function).parameters.values())[1:]

        @functools.wraps(function)
        def run(context: typer.Context, **arguments: Any) -> None:
            options = _take_shared(arguments).over(context.obj or SharedOptions())
            _run(lambda: function(Hive(options), **arguments), options)

        _give_signature(run, own)
        app.command(name, epilog=EXIT_CODES_HELP, rich_help_panel=panel)(run)
        return function

    return register


def shared_options(app: typer.Typer, help_text: str) -> None:
    """Let `app` itself take the shared options, before the command's name."""

    def remember(context: typer.Context, **arguments: Any) -> None:
        context.obj = _take_shared(arguments)

    _give_signature(remember, [])
    app.callback(help=help_text, epilog=EXIT_CODES_HELP)(remember)


def _give_signature(function: Callable[..., None], own: list[inspect.Parameter]) -> None:
    keyword = inspect.Parameter.KEYWORD_ONLY
    shared = [
        inspect.Parameter(_key(name), keyword, default=default, annotation=kind)
        for name, kind, default in _SHARED
    ]
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [context, *(parameter.replace(kind=keyword) for parameter in own), *shared]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def _key(name: str) -> str:
    return f"shared_{name}"


def _take_shared(arguments: dict[str, Any]) -> SharedOptions:
    return replace(SharedOptions(), **{name: arguments.pop(_key(name)) for name, _, _ in _SHARED})


def shared_in(parameters: Mapping[str, Any]) -> SharedOptions:
    """The shared options among the parameters of a Typer context, for completion."""
    given = {name: parameters.get(_key(name)) for name, _, _ in _SHARED}
    return replace(SharedOptions(), **{name: value for name, value in given.items() if value is not None})


def _run(work: Callable[[], None], options: SharedOptions) -> None:
    """Do the work of a command; turn whatever ends it into an exit code and one line on stderr."""
    try:
        work()
    except ReaderGone:
        cli_output.silence_output()
    except NotReachable as error:
        _fail(ExitCode.NOT_REACHABLE, _how_to_reach(error, options))
    except UsageProblem as error:
        _fail(ExitCode.USAGE, str(error))
    except ValidationError as error:
        _fail(ExitCode.USAGE, wire.bad_field(error).message)
    except BadConfiguration as error:
        _fail(ExitCode.USAGE, str(error))
    except HiveError as error:
        _fail(ExitCode.REFUSED, error.message)
    except Failed as error:
        _fail(ExitCode.REFUSED, str(error))
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except Exception as error:
        if os.environ.get("HIVE_DEBUG"):
            raise
        what = f"{type(error).__name__}: {error}"
        _fail(ExitCode.REFUSED, f"this should not happen: {what}; HIVE_DEBUG=1 shows where; please report it")


def _how_to_reach(error: NotReachable, options: SharedOptions) -> str:
    target = options.target()
    if _is_forbidden(target.socket):
        return f"{target.socket}: permission denied; become root or join the group of that socket"
    start = f"start the daemon with `{target.start_hint}`"
    return f"{error.message}; {start}, or say where it is with --root or --socket"


def _is_forbidden(socket: Path) -> bool:
    try:
        return not os.access(socket, os.W_OK) and socket.exists()
    except PermissionError:
        return True


def _fail(code: ExitCode, message: str) -> None:
    if message:
        cli_output.tell("error: " + " ".join(message.split()))
    raise typer.Exit(code) from None
