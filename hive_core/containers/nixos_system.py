"""From an agent's configuration to a NixOS system: the generated flake, its build, and where both are kept.

A flake is kept under the digest of its files, so that what was built is also what is installed later, and
building the same again is quick. The link to the result beside it keeps the store from collecting it.
"""

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hive_core.containers.base import BuildFailed, System
from hive_core.containers.command import SHOWN_LINES, CommandFailed, printing
from hive_core.containers.local_system import LocalLimits, LocalSystem
from hive_core.containers.nixos_conf import check_path
from hive_core.containers.nixos_program import FLAKE_ATTRIBUTE, NIX_OPTIONS, NixosContainer
from hive_core.terminal_text import clean_line
from hive_shared.errors import HiveError
from hive_shared.redact import LineRedactor

KEPT_PER_AGENT = 8
DIGEST_CHARACTERS = 20
FLAKE_DIRECTORY = "flake"
RESULT_LINK = "result"
DESCRIPTION = "etc/hyperhive/agent.json"  # in the system; made by the module of agents' containers
DESCRIPTION_MAX_BYTES = 1024 * 1024

D = TypeVar("D", bound=BaseModel)

# Name of the agent → the generated files of its flake, by name.
Render = Callable[[str], Mapping[str, str]]


class NixosSystem(BaseModel):
    """A system that was built: its store path, the flake it was built from, and what core must know of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["nixos"] = "nixos"
    path: str
    flake: str  # a flake reference, without attribute
    limits: LocalLimits = LocalLimits()  # that the configuration asks for

    @classmethod
    def of(cls, agent: str, system: System) -> "NixosSystem":
        """Read back what `build` gave; raises `HiveError` if another runtime, or nothing, built it."""
        try:
            return cls.model_validate(dict(system))
        except ValidationError:
            raise HiveError(
                f"agent {agent}: what it runs was not built for a NixOS container; rebuild {agent}"
            ) from None


class Systems:
    """Builds systems, and keeps the flakes of the latest ones of each agent."""

    def __init__(
        self, root: Path, nix: str, render: Render, program: NixosContainer, *, timeout_seconds: float
    ) -> None:
        self._root = root
        self._nix = nix
        self._render = render
        self._program = program
        self._timeout_seconds = timeout_seconds

    async def build(self, agent: str, tree: Path, log: Callable[[str], None]) -> NixosSystem:
        """Build what `tree` describes; raises `BuildFailed` with the last lines, or that it took too long."""
        place = await asyncio.to_thread(self._place, agent, tree)
        flake = f"path:{check_path(place / FLAKE_DIRECTORY)}"
        last: deque[str] = deque(maxlen=SHOWN_LINES)
        redactor = LineRedactor()

        def line(text: str) -> None:
            text = clean_line(redactor.clean_text(text).rstrip("\r").expandtabs(8))
            last.append(text)
            log(text)

        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._run(flake, place / RESULT_LINK, line, last)
        except CommandFailed as error:
            raise BuildFailed(f"the configuration of {agent} does not build: {error.message}") from None
        except TimeoutError:
            seen = " | ".join(last) or "it printed nothing"
            raise BuildFailed(
                f"building the configuration of {agent} took longer than {self._timeout_seconds:g} seconds; "
                f"it was ended: {seen}"
            ) from None
        await asyncio.to_thread(self._prune, agent, keep=place)
        path = os.readlink(place / RESULT_LINK)
        return NixosSystem(path=path, flake=flake, limits=await asyncio.to_thread(_limits_of, Path(path)))

    def ready(self, agent: str, system: NixosSystem) -> None:
        """Raise `HiveError` if its flake is not here any more."""
        directory = Path(system.flake.removeprefix("path:"))
        if not directory.is_relative_to(self._root / agent) or not directory.is_dir():
            raise HiveError(f"agent {agent}: the flake that it was built from is gone; rebuild {agent}")
        os.utime(directory.parent)

    def forget(self, agent: str) -> None:
        shutil.rmtree(self._root / agent, ignore_errors=True)

    async def _run(self, flake: str, link: Path, line: Callable[[str], None], last: deque[str]) -> None:
        attribute = f'{flake}#nixosConfigurations."{FLAKE_ATTRIBUTE}".config.system.build.toplevel'
        command = [
            self._nix, "build", "--out-link", str(link), *NIX_OPTIONS, "--", attribute,
        ]  # fmt: skip
        async with (
            self._program.room() as directory,
            printing(command, environment=self._program.environment(), directory=directory) as program,
        ):
            async for text in program.lines():
                line(text)
            await program.succeeded(last)

    def _place(self, agent: str, tree: Path) -> Path:
        """Where the flake lies; made aside first, so that what is there is complete."""
        files = _files(tree) | {name: text.encode() for name, text in self._render(agent).items()}
        place = self._root / agent / _digest(files)
        if not place.is_dir():
            fresh = place.with_name(f".{secrets.token_hex(8)}")
            for name, content in files.items():
                path = fresh / FLAKE_DIRECTORY / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            try:
                fresh.rename(place)
            except OSError:  # another build of the same was quicker
                shutil.rmtree(fresh)
        os.utime(place)
        return place

    def _prune(self, agent: str, keep: Path) -> None:
        """Forget all but the latest used."""
        places = sorted((self._root / agent).iterdir(), key=lambda place: place.stat().st_mtime, reverse=True)
        for place in places[KEPT_PER_AGENT:]:
            if place != keep:
                with contextlib.suppress(OSError):
                    shutil.rmtree(place)


class _Described(BaseModel):
    """Of `agent.json`, what is of use here; the container's own module writes more into it."""

    limits: LocalLimits = LocalLimits()


def described(system: Path) -> LocalSystem:
    """What a built system says of itself; raises `BuildFailed` if it says something else instead."""
    return _described(system, LocalSystem)


def _limits_of(system: Path) -> LocalLimits:
    """What the built configuration asks for; raises `BuildFailed` if it says something else instead."""
    return _described(system, _Described).limits


def _described(system: Path, kind: type[D]) -> D:
    file = system / DESCRIPTION
    if not file.exists():
        return kind()
    real = file.resolve()
    if not real.is_relative_to(system.parent):
        raise BuildFailed(f"{DESCRIPTION} of the built system leads out of the store, to {real}")
    try:
        with real.open("rb") as opened:
            return kind.model_validate_json(opened.read(DESCRIPTION_MAX_BYTES))
    except (OSError, ValidationError):
        raise BuildFailed(f"{DESCRIPTION} of the built system is not what hyperhive writes there") from None


def _files(tree: Path) -> dict[str, bytes]:
    """The files of an exported commit, which core itself has written: regular files and directories only."""
    found = {}
    for path in sorted(tree.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise HiveError(f"{path} is neither a file nor a directory; it cannot be built")
        if path.is_file():
            found[str(path.relative_to(tree))] = path.read_bytes()
    return found


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        for part in (name.encode(), content):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:DIGEST_CHARACTERS]
