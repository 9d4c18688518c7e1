"""Read a pack's outside before git does: what it would cost to unpack it (SECURITY 6).

A pack of some megabytes can hold gigabytes. This goes through it once, in constant memory, and refuses
what is larger than the limits, what is cut off, and what has something behind its end. It does not look at
what the objects say: git does that, once this has found that git can afford to.
"""

import hashlib
import mmap
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hive_core.git import limits
from hive_core.git.refusal import CommitRefused

_SIGNATURE = b"PACK"
_VERSION = 2
_HEADER_BYTES = 12
_SHA_BYTES = 20
_TRAILER_BYTES = _SHA_BYTES
_INPUT_BYTES = 64 * 1024  # given to zlib at once
_OUTPUT_BYTES = 64 * 1024  # taken from zlib at once
_DELTA_SIZES_BYTES = 20  # two numbers of at most ten bytes each
_NUMBER_MAX_BITS = 63

_PLAIN = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}
_OFFSET_DELTA = 6
_REFERENCE_DELTA = 7

# Raises what should end the work; called every few hundred kilobytes and for every object.
Pause = Callable[[], None]


@dataclass
class Patience:
    """A `Pause` that ends work which took too long, or which nobody waits for any more."""

    seconds: float
    given_up: bool = False

    def __post_init__(self) -> None:
        self._until = time.monotonic() + self.seconds

    def __call__(self) -> None:
        if self.given_up or time.monotonic() > self._until:
            raise CommitRefused(f"the pack took longer than {self.seconds:g} seconds to look through")


def copy_pack(source: int, place: Path, pause: Pause) -> None:
    """Copy an open file into a new one of ours: what is checked from then on cannot change any more."""
    with open(place, "xb") as copy:
        at = 0
        while chunk := os.pread(source, limits.COPY_CHUNK_BYTES, at):
            pause()
            at += len(chunk)
            if at > limits.PACK_MAX_BYTES:
                raise CommitRefused(
                    f"the pack is larger than {limits.PACK_MAX_BYTES // limits.MIB} MiB; "
                    "commit on a shorter history, such as a new root commit, and submit that"
                )
            copy.write(chunk)


def scan_pack(place: Path, pause: Pause) -> None:
    """Raise `CommitRefused` unless the file is one whole pack of version 2 within the limits."""
    with open(place, "rb") as file:
        if os.fstat(file.fileno()).st_size < _HEADER_BYTES + _TRAILER_BYTES:
            raise CommitRefused("the pack is cut off: it is shorter than an empty one")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Scan(data, pause).run()


class _Scan:
    def __init__(self, data: mmap.mmap, pause: Pause) -> None:
        self._data = data
        self._pause = pause
        self._at = _HEADER_BYTES
        self._end = len(data) - _TRAILER_BYTES
        self._inflated = 0

    def run(self) -> None:
        for number in range(self._count()):
            self._pause()
            self._object(number)
        if self._at != self._end:
            raise CommitRefused(f"the pack has {self._end - self._at} bytes behind its last object")
        digest = hashlib.sha1(usedforsecurity=False)
        for at in range(0, self._end, limits.COPY_CHUNK_BYTES):
            digest.update(self._data[at : min(at + limits.COPY_CHUNK_BYTES, self._end)])
        if digest.digest() != self._data[self._end :]:
            raise CommitRefused("the pack is damaged: its checksum is wrong")

    def _count(self) -> int:
        header = self._data[:_HEADER_BYTES]
        if header[:4] != _SIGNATURE:
            raise CommitRefused("not a pack: it does not begin with PACK")
        version, count = (int.from_bytes(header[at : at + 4], "big") for at in (4, 8))
        if version != _VERSION:
            raise CommitRefused(f"a pack of version {version}; this hive takes version {_VERSION}")
        if not 0 < count <= limits.OBJECTS_MAX:
            raise CommitRefused(f"the pack has {count} objects; between 1 and {limits.OBJECTS_MAX} are taken")
        return count

    def _object(self, number: int) -> None:
        kind, size = self._entry_header()
        if size > limits.OBJECT_MAX_BYTES:
            raise CommitRefused(_too_large(number, size))
        if kind == _OFFSET_DELTA:
            self._number()
        elif kind == _REFERENCE_DELTA:
            self._at += _SHA_BYTES
        elif kind not in _PLAIN:
            raise CommitRefused(f"object {number} of the pack is of an unknown type ({kind})")
        start = self._inflate(number, size)
        self._count_inflated(size)
        if kind not in _PLAIN:
            result = _delta_result(start)
            if result > limits.OBJECT_MAX_BYTES:
                raise CommitRefused(_too_large(number, result))
            self._count_inflated(result)

    def _count_inflated(self, size: int) -> None:
        self._inflated += size
        if self._inflated > limits.INFLATED_MAX_BYTES:
            raise CommitRefused(
                f"the pack is more than {limits.INFLATED_MAX_BYTES // limits.MIB} MiB unpacked; "
                "commit on a shorter history, such as a new root commit, and submit that"
            )

    def _byte(self) -> int:
        if self._at >= self._end:
            raise CommitRefused("the pack is cut off")
        value = self._data[self._at]
        self._at += 1
        return value

    def _entry_header(self) -> tuple[int, int]:
        """Three bits of type; the size in four bits, then seven a byte, the lowest first."""
        byte = self._byte()
        kind, size, shift = (byte >> 4) & 7, byte & 15, 4
        while byte & 0x80:
            byte = self._byte()
            size |= (byte & 0x7F) << shift
            shift += 7
            if shift > _NUMBER_MAX_BITS:
                raise CommitRefused("the pack is damaged: the size of an object has too many digits")
        return kind, size

    def _number(self) -> None:
        """How far back a delta's base is; git checks that there is one."""
        for _ in range(_NUMBER_MAX_BITS // 7 + 1):
            if not self._byte() & 0x80:
                return
        raise CommitRefused("the pack is damaged: an offset has too many digits")

    def _inflate(self, number: int, size: int) -> bytes:
        """Go past a zlib stream that holds exactly `size` bytes; returns the first few of them."""
        stream = zlib.decompressobj()
        start, done, pending = b"", 0, b""
        while not stream.eof:
            self._pause()
            pending = pending or self._next_input(size)
            try:
                output = stream.decompress(pending, min(_OUTPUT_BYTES, size - done + 1))
            except zlib.error:
                raise CommitRefused(f"the pack is damaged: object {number} cannot be unpacked") from None
            if not (output or pending or stream.eof):
                raise CommitRefused("the pack is cut off")
            pending = stream.unconsumed_tail
            if len(start) < _DELTA_SIZES_BYTES:
                start += output[:_DELTA_SIZES_BYTES]
            done += len(output)
            if done > size:
                raise CommitRefused(f"the pack is damaged: object {number} is larger than it says")
        self._at -= len(stream.unused_data)
        if done != size:
            raise CommitRefused(f"the pack is damaged: object {number} is smaller than it says")
        return start

    def _next_input(self, size: int) -> bytes:
        """What follows; nothing at the end, where zlib may still hold output back."""
        upto = min(self._at + min(size + 128, _INPUT_BYTES), self._end)
        chunk = self._data[self._at : upto]
        self._at = upto
        return chunk


def _delta_result(start: bytes) -> int:
    """The size of what a delta makes: the second number of its header. git holds the delta to it."""
    at = 0
    value = 0
    for _ in range(2):
        value, shift = 0, 0
        while True:
            if at >= len(start) or shift > _NUMBER_MAX_BITS:
                raise CommitRefused("the pack is damaged: a delta has no sizes")
            byte = start[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
    return value


def _too_large(number: int, size: int) -> str:
    return (
        f"object {number} of the pack is {size} bytes; at most {limits.OBJECT_MAX_BYTES} are taken. "
        "If a file that large is in the history, commit without it on a new root commit"
    )
