"""Which hive a command means: the roots and the host socket, from flags, environment, file and place.

The rule is the same for `serve` and for everything that calls a running daemon, so that both find
each other. In falling precedence: `--socket` and `--root`; `HIVE_RUN_ROOT` and `HIVE_STATE_ROOT`;
`HIVE_ROOT`; `run_root` and `state_root` of the configuration file; `./.hive` of this directory or of
the project it lies in; `/run/hyperhive` and `/var/lib/hyperhive` (SPEC section 3).
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hive_shared.paths import HostPaths

LOCAL_ROOT = ".hive"


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
        if self.chosen_by.startswith(("--root", "HIVE_ROOT", LOCAL_ROOT)):
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
        return HostPaths.under(root.absolute()), f"--root {root}"
    base, chosen_by = _without_single_roots(config, env, directory)
    run_root, state_root = _path(env.get("HIVE_RUN_ROOT")), _path(env.get("HIVE_STATE_ROOT"))
    if run_root or state_root:
        chosen_by = "HIVE_RUN_ROOT" if run_root else "HIVE_STATE_ROOT"
    return HostPaths(state_root=state_root or base.state_root, run_root=run_root or base.run_root), chosen_by


def _without_single_roots(
    config: Path | None, env: Mapping[str, str], directory: Path
) -> tuple[HostPaths, str]:
    if env.get("HIVE_ROOT"):
        return HostPaths.under(Path(env["HIVE_ROOT"]).absolute()), "HIVE_ROOT"
    in_file = _read(config) if config is not None else {}
    run_root, state_root = _path(in_file.get("run_root")), _path(in_file.get("state_root"))
    if run_root or state_root:
        usual = HostPaths()
        paths = HostPaths(state_root=state_root or usual.state_root, run_root=run_root or usual.run_root)
        return paths, str(config)
    local = local_root(directory)
    if local is not None:
        return HostPaths.under(local), LOCAL_ROOT
    return HostPaths(), "the default"


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
