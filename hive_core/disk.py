"""The disk under the hive when it refuses: what is told of it, and what to do.

A file system that finds itself or its disk in error turns read-only under whoever uses it (ext4 with
`errors=remount-ro`): what is open stays open, reads go on, writes fail. The flags of its mount need not show
it, so it is tried; and it cannot be made writable again by remounting, only by a check and a fresh mount.
"""

import errno
import os
import tempfile
from pathlib import Path
from typing import Final

from hive_shared.errors import Unavailable

READ_ONLY: Final = "its file system is read-only"
WAY_OUT: Final = (
    "the operator has to stop hive-c0re, check the file system, mount it again and start hive-c0re "
    '(docs/operating.md, "The disk has turned read-only")'
)
_NO_ROOM: Final = "free some room, then try again"
_FAULTY: Final = "look at the disk (`dmesg | tail`) before anything else"

_WHAT_TO_DO: Final = {
    errno.EROFS: WAY_OUT,
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EIO: _FAULTY,
}


def is_read_only(directory: Path) -> bool:
    """Whether no file can be made in that directory because its file system is read-only."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return False
    except OSError as error:
        return error.errno == errno.EROFS


def refusal(error: OSError) -> Unavailable | None:
    """What whoever asked is told of an error that is the disk's, and not ours; None for any other."""
    what_to_do = _WHAT_TO_DO.get(error.errno or 0)
    if what_to_do is None:
        return None
    path = error.filename2 or error.filename
    where = os.fsdecode(path) if isinstance(path, str | bytes) else "a file of the hive"
    what = READ_ONLY if error.errno == errno.EROFS else error.strerror
    return Unavailable(f"{where} cannot be written: {what}; {what_to_do}")
