"""The systemd unit of a nixos-container: its name, and our drop-in for it.

The drop-in lies in the runtime directory: `/etc/systemd/system` belongs to NixOS, and core writes it again
before every start anyway.
"""

from pathlib import Path

from hive_core.config import AgentLimits
from hive_core.untrusted import write_file
from hive_shared.errors import HiveError

DROP_IN = "50-hyperhive.conf"


def unit_of(container: str) -> str:
    return f"container@{container}.service"


def container_of(unit: str) -> str | None:
    """The container of a unit, or None if the unit is none of a container."""
    if not (unit.startswith("container@") and unit.endswith(".service")):
        return None
    return unit.removeprefix("container@").removesuffix(".service")


def drop_in_text(limits: AgentLimits, *, stop_grace_seconds: float) -> str:
    """What our containers' units have beyond what NixOS gives them.

    Core alone starts what has crashed again, with its own backoff: so systemd neither does it, nor refuses
    starts that come soon after each other.
    """
    lines = [
        "# Written by hive-c0re before each start of this container.",
        "[Unit]",
        "StartLimitIntervalSec=0",
        "[Service]",
        "Restart=no",
        "RestartForceExitStatus=",
        f"TimeoutStopSec={stop_grace_seconds:g}s",
        f"MemoryMax={limits.memory_max_bytes}",
        "MemorySwapMax=0",
        f"TasksMax={limits.tasks_max}",
        "OOMScoreAdjust=500",  # when the machine has no memory left, agents end before core does
    ]
    if limits.cpu_quota_percent:
        lines.append(f"CPUQuota={limits.cpu_quota_percent}%")
    return "\n".join(lines) + "\n"


def limits_in_words(limits: AgentLimits) -> str:
    said = [f"memory {limits.memory_max_bytes / 2**30:g} GiB", f"{limits.tasks_max} tasks"]
    if limits.cpu_quota_percent:
        said.append(f"{limits.cpu_quota_percent} % of a core")
    return f"{', '.join(said)} (systemd)"


def write_drop_in(units: Path, container: str, text: str) -> bool:
    """Put the drop-in in place; whether it is another than before."""
    directory = _directory(units, container)
    path = directory / DROP_IN
    try:
        if path.read_text("utf-8") == text:
            return False
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    try:
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        write_file(directory, DROP_IN, text.encode())
        path.chmod(0o644)
    except OSError as error:
        raise HiveError(f"the limits of {container} cannot be written to {path}: {error.strerror}") from None
    return True


def remove_drop_in(units: Path, container: str) -> None:
    directory = _directory(units, container)
    (directory / DROP_IN).unlink(missing_ok=True)
    try:
        directory.rmdir()
    except OSError:
        return  # somebody else has one there too, or there was none


def _directory(units: Path, container: str) -> Path:
    return units / f"{unit_of(container)}.d"
