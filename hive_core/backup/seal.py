"""Encrypt an archive on its way to the disk, with the machine's own `age` or `gpg` (SECURITY 13).

The plain archive is only ever in a pipe. Programs are run from here, besides `containers.command`: what
passes through them is larger than memory.
"""

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from hive_shared.errors import BadRequest, HiveError, NotAvailable

AGE_MAGIC: Final = b"age-encryption.org/"
PASSPHRASE_MAX_BYTES: Final = 4096
ENDS_SECONDS: Final = 60.0  # for a program to end once it has everything
_AGE_RECIPIENTS: Final = ("age1", "ssh-ed25519 ", "ssh-rsa ")

GET: Final = (
    "install one of them (Debian/Ubuntu: apt install age, or gnupg · NixOS: age, gnupg · Fedora: dnf install "
    "age, or gnupg2), or back up without credentials: agents then log in again after a restore"
)


@dataclass(frozen=True)
class Keys:
    """Who can open an archive: recipients of `age` or `gpg`, or who knows what is in a file."""

    recipients: tuple[str, ...] = ()
    passphrase_file: Path | None = None
    identity: Path | None = None  # of age, to open one

    def __bool__(self) -> bool:
        return bool(self.recipients or self.passphrase_file)


def check(keys: Keys) -> None:
    """Raises `NotAvailable` or `BadRequest`, with advice, where `sealing` cannot work."""
    if not shutil.which("age") and not shutil.which("gpg"):
        raise NotAvailable(f"to encrypt takes age or gpg, and neither is on PATH; {GET}")
    if keys.recipients and keys.passphrase_file:
        raise BadRequest("give either --recipient or --passphrase-file, not both")
    _program_for(keys)
    if keys.passphrase_file:
        _read_passphrase(keys.passphrase_file)


@contextlib.contextmanager
def sealing(keys: Keys, target: IO[bytes]) -> Iterator[IO[bytes]]:
    """What is written to the stream arrives in `target` encrypted; raises `HiveError` if it did not."""
    with _secrets(keys) as (options, descriptors), tempfile.TemporaryFile() as said:
        if _program_for(keys) == "age":
            command = ["age", "--encrypt", *(f"--recipient={one}" for one in keys.recipients)]
        elif keys.recipients:
            to = [part for one in keys.recipients for part in ("--recipient", one)]
            # Whoever is named is meant: no web of trust is asked.
            command = [*_gpg(options), "--trust-model", "always", *to, "--encrypt"]
        else:
            command = [*_gpg(options), "--cipher-algo", "AES256", "--symmetric"]
        program = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=target, stderr=said, pass_fds=descriptors
        )
        with _ended(program, said):
            stream = cast(IO[bytes], program.stdin)
            try:
                yield stream
                stream.close()
            except BrokenPipeError:
                raise _Ended from None


@contextlib.contextmanager
def opened(source: IO[bytes], keys: Keys) -> Iterator[IO[bytes]]:
    """The archive in a file, decrypted where it is encrypted; raises `HiveError`."""
    magic = os.pread(source.fileno(), len(AGE_MAGIC), 0)
    if magic.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        yield source
        return
    if magic != AGE_MAGIC and not (magic[:1] and magic[0] & 0x80) and not magic.startswith(b"-----BEGIN"):
        raise HiveError("it is no backup of a hive, neither plain nor encrypted")
    with _secrets(keys) as (options, descriptors), tempfile.TemporaryFile() as said:
        command = _opening(magic == AGE_MAGIC, options, keys)
        program = subprocess.Popen(
            command, stdin=source, stdout=subprocess.PIPE, stderr=said, pass_fds=descriptors
        )
        with _ended(program, said):
            yield cast(IO[bytes], program.stdout)


def _opening(is_age: bool, options: Sequence[str], keys: Keys) -> list[str]:
    name = "age" if is_age else "gpg"
    if not shutil.which(name):
        raise NotAvailable(f"it is encrypted with {name}, which is not on PATH; install it first")
    if not is_age:
        return [*_gpg(options), "--decrypt"]
    if keys.identity is None:
        raise BadRequest("it is encrypted with age: name the file with your key, --identity FILE")
    return ["age", "--decrypt", "--identity", str(keys.identity)]


def _program_for(keys: Keys) -> str:
    for_age = [one.startswith(_AGE_RECIPIENTS) for one in keys.recipients]
    if any(for_age) and not all(for_age):
        raise BadRequest("the recipients are of age and of gpg; name those of one of them")
    if any(one.startswith("-") for one in keys.recipients):
        raise BadRequest("a recipient cannot begin with a hyphen")
    name = "age" if for_age and all(for_age) else "gpg"
    if shutil.which(name):
        return name
    if name == "gpg" and keys.passphrase_file:
        raise NotAvailable(
            "a passphrase takes gpg, which is not on PATH; install it, or name an age recipient"
        )
    raise NotAvailable(f"that recipient is of {name}, which is not on PATH; install it, or name another one")


def _gpg(options: Sequence[str]) -> list[str]:
    return ["gpg", "--batch", "--quiet", "--no-tty", "--yes", "--compress-algo", "none", *options]


@contextlib.contextmanager
def _secrets(keys: Keys) -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """Options of gpg and descriptors to hand over: a passphrase is in no argument and no environment."""
    if keys.passphrase_file is None:
        yield [], ()
        return
    with tempfile.TemporaryDirectory(prefix="hive-gpg-") as home:  # nothing of the operator's own is used
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            os.write(writing, _read_passphrase(keys.passphrase_file) + b"\n")
            os.close(writing)
            secret = ["--pinentry-mode", "loopback", "--passphrase-fd", str(reading)]
            yield ["--no-options", "--homedir", home, *secret], (reading,)
        finally:
            os.close(reading)
            # gpg starts an agent in that directory, which would outlive it.
            if shutil.which("gpgconf"):
                subprocess.run(
                    ["gpgconf", "--homedir", home, "--kill", "all"], check=False, capture_output=True
                )


def _read_passphrase(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            line = file.read(PASSPHRASE_MAX_BYTES + 1).rstrip(b"\r\n")
    except OSError as error:
        raise BadRequest(f"passphrase file {path}: {error.strerror}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise BadRequest(f"passphrase file {path}: others can read it; chmod 600 {path}")
    if not line or len(line) > PASSPHRASE_MAX_BYTES or b"\n" in line:
        raise BadRequest(f"passphrase file {path}: must hold one line, the passphrase")
    return line


class _Ended(Exception):
    """The program ended before it had everything; why, it has said itself."""


@contextlib.contextmanager
def _ended(program: "subprocess.Popen[bytes]", said: IO[bytes]) -> Iterator[None]:
    """Raise what the program said if it failed; if the work with it failed, end it."""
    name = cast(Callable[..., str], os.fsdecode)(cast(list[str], program.args)[0])
    try:
        yield
        if program.stdout is not None:
            program.stdout.read()  # nothing should be left: a program that still writes could not end
        code = program.wait(ENDS_SECONDS)
    except _Ended:
        code = program.wait(ENDS_SECONDS) or 1
    except subprocess.TimeoutExpired:
        raise HiveError(f"{name} did not end") from None
    finally:
        if program.poll() is None:
            program.kill()
            program.wait()
        for stream in (program.stdin, program.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
    if code != 0:
        raise HiveError(f"{name}: {_last_line(said)}")


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read(2**16).decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "failed without a word"
