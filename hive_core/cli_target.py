"""Which hive a command means: the roots and the host socket, from flags, environment, file and place.

The rule is the same for `serve` and for everything that calls a running daemon, so that both find
each other. In falling precedence: `--socket` and `--root`; `HIVE_SOCKET`; `HIVE_RUN_ROOT`,
`HIVE_STATE_ROOT` and `HIVE_ROOT`; the same names in the configuration file; `./.hive` of this
directory or of the project it lies in; `/run/hyperhive` and `/var/lib/hyperhive` (SPEC section 3).
`hive_core.config` reads the same file and variables for the daemon; it is not imported here because
it takes longer than most commands, and a test holds the two together.
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hive_shared.paths import HostPaths

LOCAL_ROOT = ".hive"
_ROOTS = ("root", "state_root", "run_root")


class BadConfiguration(Exception):
    """The configuration file cannot be read."""


@dataclass(frozen=True)
class Target:
    """One hive: where it keeps things, where its host socket is, and what made us look there."""

    paths: HostPaths
    socket: Path
    chosen_by: str
    config: Path | None = None

    @property
    def start_hint(self) -> str:
        """The command that starts the daemon that was looked for."""
        if self.chosen_by in ("--root", LOCAL_ROOT):
            return f"hive-c0re serve --root {self.paths.run_root.parent}"
        if self.config is not None:
            return f"hive-c0re serve --config {self.config}"
        return "hive-c0re serve"


def find_target(
    *,
    root: Path | None = None,
    socket: Path | None = None,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Target:
    """The hive that is meant; raises `BadConfiguration` for a file that is not readable TOML."""
    env = os.environ if environment is None else environment
    config = config or _path(env.get("HIVE_CONFIG"))
    paths, chosen_by = _choose(root, config, env, directory or Path.cwd())
    if socket is not None:
        chosen_by = "--socket"
    elif env.get("HIVE_SOCKET") and root is None:
        socket, chosen_by = Path(env["HIVE_SOCKET"]), "HIVE_SOCKET"
    return Target(paths=paths, socket=socket or paths.host_socket, chosen_by=chosen_by, config=config)


def _choose(
    root: Path | None, config: Path | None, env: Mapping[str, str], directory: Path
) -> tuple[HostPaths, str]:
    if root is not None:
        return HostPaths.under(root.absolute()), "--root"
    in_environment = {name: env.get(f"HIVE_{name.upper()}") for name in _ROOTS}
    layers = [("the environment", in_environment)]
    if config is not None:
        layers.append((f"configuration file {config}", _read(config)))
    state_root, run_root = _merged(layers)
    if state_root is None and run_root is None:
        local = local_root(directory)
        return (HostPaths(), "the default") if local is None else (HostPaths.under(local), LOCAL_ROOT)
    usual = HostPaths()
    chosen_by = next(name for name, layer in layers if any(layer.get(root) for root in _ROOTS))
    return HostPaths(
        state_root=state_root or usual.state_root, run_root=run_root or usual.run_root
    ), chosen_by


def _merged(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Path | None, Path | None]:
    """State and run root, each from the first layer that names it or the `root` of both."""
    state_root: Path | None = None
    run_root: Path | None = None
    for _, layer in layers:
        whole = _path(layer.get("root"))
        beneath = HostPaths.under(whole) if whole else None
        state_root = state_root or _path(layer.get("state_root")) or (beneath.state_root if beneath else None)
        run_root = run_root or _path(layer.get("run_root")) or (beneath.run_root if beneath else None)
    return state_root, run_root


def local_root(directory: Path) -> Path | None:
    """The `.hive` of `directory`, or of the checkout of this project that it lies in.

    One that belongs to somebody else is passed over: a planted `.hive` in a shared directory would
    otherwise receive what the operator says to the hive.
    """
    for place in (directory, *directory.parents):
        candidate = place / LOCAL_ROOT
        if (place == directory or _is_project(place)) and _is_ours(candidate):
            return candidate
    return None


def _is_project(directory: Path) -> bool:
    return (directory / "pyproject.toml").is_file() and (directory / "hive_core").is_dir()


def _is_ours(directory: Path) -> bool:
    try:
        found = directory.stat()
    except OSError:
        return False
    return directory.is_dir() and found.st_uid in (0, os.geteuid())


def _read(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text())
    except OSError as error:
        raise BadConfiguration(
            f"configuration file {config}: {error.strerror}; check --config or HIVE_CONFIG"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"configuration file {config}: not TOML: {error}") from None


def _path(value: object) -> Path | None:
    return Path(value).expanduser().absolute() if isinstance(value, str) and value else None
