"""Become one agent's container: joins its cgroups, takes limits, drops the user, then runs it.

Started once per container start as `python -I -S launch.py FD`, so it imports only the standard library, and
all of it before the user changes: the interpreter may lie where that user cannot look. FD holds
the order as JSON, so that nothing of it is in the process's arguments:

join      cgroup.procs files to enter
rlimits   name without RLIMIT_ → soft and hard limit
mounts    paths that the new user could not reach by itself; each is bound at STAGING/<index>
          in a mount namespace of our own
user      user and group id to become, or null
apart     true: no abstract Unix socket that was made outside can be connected to (Linux 6.12)
parent    the process id of core: if that is not our parent any more, we are not wanted
command   what to execute; environment, directory
lifeline  null: become the command, and die with core. Else a descriptor that core holds open the
          other end of: stay, run the command as a child, and when it or core ends, kill whatever
          they left behind, however deep, so that no process outlives its container.

Whatever the order says, the container gets a session keyring of its own, since it would possess the keys of
whoever started core; and when memory runs out, the kernel takes its processes before core.
"""

import ctypes
import json
import os
import resource
import selectors
import signal
import stat
import sys

STAGING = "/run"  # exists everywhere, and anyone may pass through it; hidden in our own namespace only
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_SLAVE = 4096, 16384, 1 << 19
CANNOT_RUN = 127
KEYCTL = {"x86_64": 250, "aarch64": 219}  # its number, where we know it
KEYCTL_JOIN_SESSION_KEYRING = 1
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = 444, 446  # on every machine
LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET = 1
OUT_OF_MEMORY_SCORE = 500  # of 1000; core has 0

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    with os.fdopen(int(sys.argv[1])) as file:
        order = json.load(file)
    for procs in order["join"]:
        with open(procs, "w") as file:
            file.write("0")
    for name, value in order["rlimits"].items():
        _limit(getattr(resource, f"RLIMIT_{name}"), value)
    if order["mounts"]:
        _stage(order["mounts"])
    _leave_keyring()
    _be_expendable()
    if order["apart"]:
        _keep_apart()
    os.umask(0o077)
    if order["user"] is not None:
        os.setgroups([])
        os.setresgid(order["user"], order["user"], order["user"])
        os.setresuid(order["user"], order["user"], order["user"])
    if order["lifeline"] is None:
        _die_with_parent(order["parent"])
        _become(order)
    _keep(order)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _stage(sources: "list[str]") -> None:
    """Bind each source below STAGING, where the new user can reach it. Needs root; seen by us alone."""
    _checked(_libc.unshare(CLONE_NEWNS), "unshare")
    _mount(b"none", b"/", None, MS_REC | MS_SLAVE, None)
    held = [os.open(source, os.O_PATH | os.O_CLOEXEC) for source in sources]
    _mount(b"tmpfs", STAGING.encode(), b"tmpfs", 0, b"mode=755,size=1m")
    for index, descriptor in enumerate(held):
        target = f"{STAGING}/{index}"
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.mkdir(target, 0o755)
        else:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o644))
        _mount(f"/proc/self/fd/{descriptor}".encode(), target.encode(), None, MS_BIND | MS_REC, None)
        os.close(descriptor)


def _mount(source: bytes, target: bytes, kind: "bytes | None", flags: int, options: "bytes | None") -> None:
    _checked(_libc.mount(source, target, kind, ctypes.c_ulong(flags), options), f"mount {target.decode()}")


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _leave_keyring() -> None:
    """A new and empty session keyring: possessing one gives its keys, whatever the user."""
    number = KEYCTL.get(os.uname().machine)
    if number is not None:  # a kernel without keyrings answers ENOSYS, and then there is nothing to leave
        _libc.syscall(number, KEYCTL_JOIN_SESSION_KEYRING, None)


def _be_expendable() -> None:
    """Done as root, the container cannot take it back."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(OUT_OF_MEMORY_SCORE))


def _keep_apart() -> None:
    """The network is the host's, and so are the names of abstract sockets: anyone could connect to them."""
    # struct landlock_ruleset_attr: handled_access_fs, handled_access_net, scoped
    attributes = (ctypes.c_uint64 * 3)(0, 0, LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    rules = _libc.syscall(LANDLOCK_CREATE_RULESET, ctypes.byref(attributes), size, 0)
    _checked(min(rules, 0), "landlock_create_ruleset")
    if os.geteuid() != 0:
        _checked(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _checked(_libc.syscall(LANDLOCK_RESTRICT_SELF, rules, 0), "landlock_restrict_self")
    os.close(rules)


def _die_with_parent(parent: int) -> None:
    """Set after the user changed: that resets it. The parent may have died just before."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(CANNOT_RUN)


def _become(order: "dict") -> None:  # type: ignore[type-arg]
    command = order["command"]
    try:
        os.chdir(order["directory"])
        os.execve(command[0], command, order["environment"])  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(CANNOT_RUN)


def _keep(order: "dict") -> None:  # type: ignore[type-arg]
    """Run the command as a child until it or core ends, then leave nothing behind."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    me = os.getpid()
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (wake, woken, order["lifeline"]):
            os.close(descriptor)
        os.setpgid(0, 0)
        _die_with_parent(me)
        _become(order)
    signal.signal(signal.SIGTERM, lambda *_: _signal(child, signal.SIGTERM))
    status = _wait(child, order["lifeline"], wake)
    _kill_descendants()
    code = -signal.SIGKILL if status is None else os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)  # a signal is told as shells and bubblewrap do


def _wait(child: int, lifeline: int, wake: int) -> "int | None":
    """The wait status of `child`, or None once core is gone. Reaps orphans on the way."""
    with selectors.DefaultSelector() as selector:
        selector.register(lifeline, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == lifeline:
                    return None
                os.read(wake, 512)
            while (ended := _reap()) is not None:
                if ended[0] == child:
                    return ended[1]


def _reap() -> "tuple[int, int] | None":
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


def _kill_descendants() -> None:
    """Kill our children until there are none: orphans of those killed become ours, being the subreaper."""
    while True:
        for pid in _children():
            _signal(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> "list[int]":
    me = os.getpid()
    try:
        with open(f"/proc/self/task/{me}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:  # a kernel without that file
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent(pid) == me]


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    main()
