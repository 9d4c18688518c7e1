"""Show more directories to a container that already runs: the manager works on agents that came after it.

Possible where core is root: it clones the mount on the host, enters the container's mount namespace and
puts it there, with the system calls that `mount --bind` uses (Linux 5.12). Done by a child process, since
entering a namespace cannot be taken back: `python -I -S attach.py FD`, with the standard library only. FD
holds, as JSON, the `pid` of a process in the container, its `user` on the host, and `binds`: pairs of
source and target.
"""

import ctypes
import json
import os
import sys

OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = (
    428,
    429,
    442,
)  # the same number on every architecture that Python runs on here
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
AT_FDCWD, AT_RECURSIVE, AT_EMPTY_PATH = -100, 0x8000, 0x1000
MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 2, 4
MOVE_MOUNT_F_EMPTY_PATH = 4
CLONE_NEWNS = 0x00020000

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    with os.fdopen(int(sys.argv[1])) as file:
        order = json.load(file)
    trees = [(_clone(source), target) for source, target in order["binds"]]
    namespace = os.open(f"/proc/{order['pid']}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    root = os.open(f"/proc/{order['pid']}/root", os.O_PATH | os.O_CLOEXEC)
    _checked(_libc.setns(namespace, CLONE_NEWNS), "setns")
    os.fchdir(root)
    os.chroot(".")
    for tree, target in trees:
        _put(tree, target, order["user"])


def _clone(source: str) -> int:
    flags = ctypes.c_uint(OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE)
    tree = _checked(_libc.syscall(OPEN_TREE, AT_FDCWD, os.fsencode(source), flags), f"open_tree {source}")
    # struct mount_attr: set, clear, propagation, user namespace
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0, 0, 0)
    flags = ctypes.c_uint(AT_EMPTY_PATH | AT_RECURSIVE)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    _checked(_libc.syscall(MOUNT_SETATTR, tree, b"", flags, ctypes.byref(attributes), size), "mount_setattr")
    return tree


def _put(tree: int, target: str, user: int) -> None:
    # Files of the container's own file systems can only belong to users that it knows.
    _libc.setfsgid(user)
    _libc.setfsuid(user)
    os.makedirs(target, 0o700, exist_ok=True)
    _libc.setfsuid(0)
    _libc.setfsgid(0)
    flags = ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH)
    _checked(
        _libc.syscall(MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), flags), f"move_mount {target}"
    )


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


if __name__ == "__main__":
    main()
