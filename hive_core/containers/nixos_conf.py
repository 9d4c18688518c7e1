"""The conf of a nixos-container: read, changed key by key, replaced at once; whose it is, what it may hold.

The file is a systemd `EnvironmentFile`, and the start script expands `EXTRA_NSPAWN_FLAGS` without quotes.
So a path with a space would be two flags, and one with a colon another bind: such paths are refused.
"""

import ipaddress
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hive_core.containers.base import Bind
from hive_shared.errors import BadRequest, Conflict, HiveError

MARK = "HYPERHIVE_STATE"  # whose container it is: the state root of its hive
CREATED = "HYPERHIVE_CREATED"  # Unix seconds; what was logged before is not its own
CONF_MAX_BYTES = 1024 * 1024
CONF_MODE = 0o644
NOT_UNDERSTOOD = (
    "the conf of the container has a quote or a line that does not end; mend what was added to it"
)
ADDRESS_PAIRS = range(1, 255)  # 10.233.N.1 and .2, as nixos-container assigns them

# What neither a shell that splits words, nor an EnvironmentFile, nor nspawn, nor a flake reference takes for
# anything but a part of a name.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._@+=,~-]*\Z")
_VALUE = re.compile(r"[\x20-\x7e]*\Z")
_NEEDS_ESCAPE = re.compile(r'(["\\`$])')
_ENTRY = re.compile(
    r"""
      [ \t]*[#;] (?: \\. | [^\\\n] )* \n?                       # a comment, which a backslash continues
    | [^\n=]* (?: \n | \Z )                                     # no assignment
    | (?P<key> [^\n=]* ) =
      (?P<value> (?: [ \t]* (?: '[^']*' | "(?: \\. | [^"\\] )*" ) )*    # quotes may span lines
                 (?! ['"] ) (?: \\. | [^\\\n] )* )                     # and are closed
      \n?
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Conf:
    """A conf as text. What we do not know is kept as it is, where it is."""

    text: str = ""

    def value(self, key: str) -> str | None:
        """What systemd would give to the start script; the last assignment counts."""
        found = None
        for entry in _entries(self.text):
            if entry["key"] is not None and entry["key"].strip() == key:
                found = _unquoted(entry["value"].strip())
        return found

    def replaced(self, values: Mapping[str, str]) -> "Conf":
        """With these values, each at its first place or at the end.

        Raises `BadRequest` for what no conf can hold, and `HiveError` if what is there would swallow it.
        """
        left = {key: _assignment(key, value) for key, value in values.items()}
        parts = []
        for entry in _entries(self.text):
            key = (entry["key"] or "").strip()
            if key in values:
                parts.append(left.pop(key, ""))  # a second one would win over ours
            else:
                parts.append(entry[0])
        if parts and parts[-1] and not parts[-1].endswith("\n"):
            parts.append("\n")
        changed = Conf("".join(parts) + "".join(left.values()))
        if any(changed.value(key) != value for key, value in values.items()):
            raise HiveError(NOT_UNDERSTOOD)
        return changed


@dataclass(frozen=True)
class Confs:
    """The directory of all containers' confs, and which of them are this hive's."""

    directory: Path
    owner: Path  # the hive's state root
    flakes: Path  # where the hive's flakes are

    def path(self, container: str) -> Path:
        return self.directory / f"{container}.conf"

    def read(self, container: str) -> Conf | None:
        """The conf of our container, or None if there is no such container.

        Raises `Conflict` if there is one that is not ours: nothing of it may be touched.
        """
        conf = self._any(container)
        if conf is not None and not self.is_ours(conf):
            raise Conflict(
                f"container {container} was not made by this hive: {self.path(container)} says nothing of "
                f"{self.owner}; give the agent another name, or remove that container yourself"
            )
        return conf

    def has(self, container: str) -> bool:
        """Whether there is such a container and it is ours."""
        try:
            return self.read(container) is not None
        except HiveError:
            return False

    def exists(self, container: str) -> bool:
        return os.path.lexists(self.path(container))

    def is_ours(self, conf: Conf) -> bool:
        """By our mark, or by the flake, which `nixos-container create` itself writes before anything else."""
        flake = conf.value("FLAKE") or ""
        return conf.value(MARK) == str(self.owner) or flake.startswith(f"path:{self.flakes}/")

    def write(self, container: str, conf: Conf) -> None:
        """Replace the conf at once: whoever reads it finds the old one or the new one."""
        fresh = self.directory / f".{container}.{secrets.token_hex(8)}"  # `list` shows what ends in .conf
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, CONF_MODE), "wb") as file:
                os.fchmod(file.fileno(), CONF_MODE)
                file.write(conf.text.encode("utf-8", "surrogateescape"))
                file.flush()
                os.fsync(file.fileno())
            os.rename(fresh, self.path(container))
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise HiveError(f"{self.path(container)} cannot be written: {error.strerror}") from None

    def free_addresses(self) -> tuple[str, str]:
        """Addresses of host and container that no container has; as `nixos-container create` finds them."""
        taken = set()
        for path in self.directory.glob("*.conf"):
            conf = self._any(path.stem)
            if conf is not None:
                taken |= {conf.value("HOST_ADDRESS"), conf.value("LOCAL_ADDRESS")}
        for number in ADDRESS_PAIRS:
            pair = (f"10.233.{number}.1", f"10.233.{number}.2")
            if taken.isdisjoint(pair):
                return pair
        raise HiveError("no address is left for a private network: 254 containers have one; destroy some")

    def _any(self, container: str) -> Conf | None:
        path = self.path(container)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError:
            return Conf()  # a link, as declarative containers have: somebody else's
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return Conf()
            return Conf(file.read(CONF_MAX_BYTES).decode("utf-8", "surrogateescape"))


# NixOS shows every container the host's Nix daemon, to which root is somebody it trusts: with settings of its
# own choice, such as a hook that runs as root outside. nspawn mounts a tmpfs after the bind it lies on,
# whatever order the flags are in.
NIX_DAEMON_COVER: Final = "--tmpfs=/nix/var/nix/daemon-socket:ro,mode=0000"

# By itself nspawn lets /dev/shm grow to a tenth of the host's memory. What lies in it counts for the
# container and belongs to no process: where its limit is smaller, the kernel would end one process after the
# other, and free nothing. The size is that of the local runtime.
SHM_COVER: Final = f"--tmpfs=/dev/shm:mode=1777,nosuid,nodev,size={2**28}"

# nspawn has a list of system calls that it allows. io_uring is on it: it does without a system call what a
# filter forbids, and kernels were broken through by it again and again. Programs fall back.
NO_IO_URING: Final = tuple(
    f"--system-call-filter=~io_uring_{name}" for name in ("setup", "enter", "register")
)


def network_values(conf: Conf, confs: Confs, *, private: bool) -> dict[str, str]:
    """The host's network, or one of its own with a pair of addresses, which is kept for life."""
    cleared = dict.fromkeys(
        ("HOST_ADDRESS", "LOCAL_ADDRESS", "HOST_ADDRESS6", "LOCAL_ADDRESS6", "HOST_BRIDGE"), ""
    )
    if not private:
        return {"PRIVATE_NETWORK": "0", **cleared}
    host, local = conf.value("HOST_ADDRESS") or "", conf.value("LOCAL_ADDRESS") or ""
    if not (_is_address(host) and _is_address(local)):
        host, local = confs.free_addresses()
    return {"PRIVATE_NETWORK": "1", **cleared, "HOST_ADDRESS": host, "LOCAL_ADDRESS": local}


def nspawn_flags(binds: Sequence[Bind], *, private_users: bool, system_call_filter: bool = True) -> list[str]:
    """Flags of ours for systemd-nspawn; raises `BadRequest` for a path that no flag can name."""
    return [
        NIX_DAEMON_COVER,
        SHM_COVER,
        *(NO_IO_URING if system_call_filter else ()),
        *(_bind_flag(bind, private_users=private_users) for bind in binds),
    ]


def check_path(path: Path) -> str:
    """`path` as text, if it can stand in a conf; else `BadRequest` with the path and why."""
    text = str(path)
    if not _PLAIN_PATH.match(text):
        raise BadRequest(
            f"path {text[:200]!r} cannot be given to a container: only a-z, A-Z, 0-9 and / . _ @ + = , ~ - "
            "pass through its configuration unchanged, and it must begin with /"
        )
    if os.path.normpath(text) != text:
        raise BadRequest(f"path {text[:200]!r} cannot be given to a container: write it without .. and //")
    return text


def _bind_flag(bind: Bind, *, private_users: bool) -> str:
    flag = "--bind" if bind.writable else "--bind-ro"
    mapped = ":idmap" if bind.writable and private_users else ""
    return f"{flag}={check_path(bind.source)}:{check_path(bind.target)}{mapped}"


def _assignment(key: str, value: str) -> str:
    if not _VALUE.match(value):
        raise BadRequest(f"{key} of a container would hold {value[:80]!r}, which its conf cannot")
    # nixos-container looks for FLAKE= and addresses with a regular expression, which knows no quotes.
    return f'{key}="{_escaped(value)}"\n' if " " in value else f"{key}={value}\n"


def _escaped(value: str) -> str:
    return _NEEDS_ESCAPE.sub(r"\\\1", value)


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1]
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _entries(text: str) -> Iterator[re.Match[str]]:
    place = 0
    while place < len(text):
        entry = _ENTRY.match(text, place)
        if entry is None or entry.end() == place:
            raise HiveError(NOT_UNDERSTOOD)
        yield entry
        place = entry.end()


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
