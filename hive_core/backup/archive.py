"""The tar in which a hive is: written in one go, with the sum of every file, and compressed."""

import gzip
import hashlib
import importlib
import io
import os
import tarfile
from typing import IO, Any, Final, cast

from hive_core.backup.manifest import MANIFEST, BadArchive, Manifest, written
from hive_core.backup.walk import Readable

GZIP_LEVEL: Final = 5
GZIP_MAGIC: Final = b"\x1f\x8b"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
PRIVATE_FILE: Final = 0o600


class Writer:
    """A tar on a stream that cannot go back. `close` writes the manifest, which names everything.

    As a context it only sees to it that nothing more is written when something has failed.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._tar = tarfile.open(  # noqa: SIM115 - closed by `close`, or left as it is on an error
            fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
        )
        self.files: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.content_bytes = 0

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # tarfile would end the archive when it is forgotten
            cast(Any, self._tar.fileobj).closed = True

    def add_directory(self, path: str, found: os.stat_result) -> None:
        self._tar.addfile(_member(path, tarfile.DIRTYPE, found))

    def add_link(self, path: str, target: str, found: os.stat_result) -> None:
        member = _member(path, tarfile.SYMTYPE, found)
        member.linkname = target
        self.links[written(path)] = written(target)
        self._tar.addfile(member)

    def add_file(self, path: str, content: Readable, size: int, found: os.stat_result) -> None:
        member = _member(path, tarfile.REGTYPE, found)
        member.size = size
        self._add(member, content)

    def add_bytes(self, path: str, data: bytes) -> None:
        """A file of core's own."""
        member = tarfile.TarInfo(path)
        member.mode = PRIVATE_FILE
        member.size = len(data)
        self._add(member, io.BytesIO(data))

    def close(self, manifest: Manifest) -> None:
        """Nothing follows."""
        whole = manifest.model_copy(update={"files": self.files, "links": self.links})
        self.add_bytes(MANIFEST, whole.model_dump_json().encode())
        self._tar.close()

    def _add(self, member: tarfile.TarInfo, content: Readable) -> None:
        summed = Summed(content)
        self._tar.addfile(member, cast(IO[bytes], summed))
        self.content_bytes += member.size
        if member.name != MANIFEST:
            self.files[written(member.name)] = summed.sha256


class Summed:
    """What is read, and its sum."""

    def __init__(self, content: Readable) -> None:
        self._content = content
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self._content.read(size)
        self._hash.update(chunk)
        return chunk

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def _member(path: str, kind: bytes, found: os.stat_result) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.type = kind
    member.mode = found.st_mode & 0o777
    member.mtime = found.st_mtime
    member.uid = found.st_uid
    member.gid = found.st_gid
    return member


# --- compression ------------------------------------------------------------


def compressing(stream: IO[bytes]) -> IO[bytes]:
    """What is written goes to `stream` compressed: by zstd where Python has it, else by gzip."""
    zstd = _zstd()
    if zstd is not None:
        return cast(IO[bytes], zstd.ZstdFile(stream, "w"))
    return cast(IO[bytes], gzip.GzipFile("", "wb", GZIP_LEVEL, stream, mtime=0))


def decompressing(stream: IO[bytes]) -> IO[bytes]:
    """The other way round, whichever it was; raises `BadArchive`."""
    buffered = io.BufferedReader(cast(Any, stream)) if isinstance(stream, io.RawIOBase) else stream
    magic = cast(Any, buffered).peek(4)[:4]
    if magic.startswith(GZIP_MAGIC):
        return cast(IO[bytes], gzip.GzipFile(fileobj=buffered, mode="rb"))
    if magic.startswith(ZSTD_MAGIC):
        zstd = _zstd()
        if zstd is None:
            raise BadArchive(
                "it is compressed with zstd, which needs Python 3.14; `zstd -d` it first, then gzip"
            )
        return cast(IO[bytes], zstd.ZstdFile(buffered, "r"))
    raise BadArchive("it is no backup of a hive: neither gzip nor zstd")


def _zstd() -> Any:
    try:
        return importlib.import_module("compression.zstd")
    except ImportError:
        return None
