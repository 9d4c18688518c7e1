"""An agent that takes all it can get: processes, memory, files (SECURITY 11 and 14)."""

from collections.abc import AsyncIterator

import pytest

from hive_shared import wire
from tests.conftest import need
from tests.support.hive import eventually
from tests.support.inside import Inside, hostile_hive, hostile_nixos_hive

pytestmark = [pytest.mark.bubblewrap, pytest.mark.slow]

TASKS = 80
MEMORY_BYTES = 400 * 2**20


@pytest.fixture(scope="module", params=["bubblewrap", "nspawn"])
async def inside(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Inside]:
    of_kind = hostile_hive if request.param == "bubblewrap" else hostile_nixos_hive
    limits = {"HIVE_LIMITS__TASKS_MAX": str(TASKS), "HIVE_LIMITS__MEMORY_MAX_BYTES": str(MEMORY_BYTES)}
    async with of_kind(tmp_path_factory.mktemp("hive"), "alice", "bob", **limits) as running:
        yield running


async def limited(inside: Inside, what: str) -> None:
    words = (await inside.hive.call(wire.DaemonStatus())).limits
    need(
        "not limited" not in words and "each process" not in words,
        f"no cgroup here that limits {what}: {words}",
    )


async def bob_is_well(inside: Inside) -> bool:
    bob = await inside.hive.agent("bob")
    return bob is not None and bob.restarts == 0 and await inside.hive.is_idle("bob")


async def test_a_fork_bomb_is_a_small_one(inside: Inside) -> None:
    await limited(inside, "processes")
    code = """
children = []
try:
    while len(children) < 1000:
        pid = os.fork()
        if pid == 0:
            time.sleep(600); os._exit(0)
        children.append(pid)
    refused = "never"
except OSError as error:
    refused = errno.errorcode[error.errno]
for pid in children: os.kill(pid, signal.SIGKILL)
for pid in children: os.waitpid(pid, 0)
tell([refused, len(children)])
"""
    refused, children = await inside.python(code)
    assert refused == "EAGAIN"
    assert children < TASKS
    assert await bob_is_well(inside)


async def test_memory_that_is_taken_without_end_costs_its_own_processes(inside: Inside) -> None:
    await limited(inside, "memory")
    was = await inside.hive.agent("alice")
    assert was is not None
    script = "#!/bin/bash\ntail /dev/zero; echo ended\n"
    order = await inside.begin(script)

    async def is_over() -> bool:
        """The kernel took the hog, or the whole container, which came up again."""
        now = await inside.hive.agent("alice")
        result = inside.hive.paths.state("alice") / f"ran-{order}"
        ended = result.exists() and "ended" in result.read_text()
        return ended or (now is not None and now.restarts > was.restarts)

    await eventually(is_over, "the hog ended")
    assert await bob_is_well(inside)
    assert inside.hive.process is not None
    assert inside.hive.process.returncode is None


async def test_shared_memory_counts_and_ends(inside: Inside) -> None:
    code = """
def fill(place):
    with open(place + "/hog", "wb") as file:
        for _ in range(64): file.write(b"x" * 2**24)
result = attempt(lambda: fill("/dev/shm")); size = os.path.getsize("/dev/shm/hog"); os.unlink("/dev/shm/hog")
tell([result, size, attempt(lambda: open("/dev/hog", "w").close())])
"""
    result, size, dev = await inside.python(code)
    assert result == "ENOSPC"
    assert dev == ("done" if inside.nspawn else "EROFS")  # nspawn's has a few MiB
    assert size <= 2**28
    assert await bob_is_well(inside)


async def test_open_files_are_bounded(inside: Inside) -> None:
    code = """
held = []
try:
    while len(held) < 10**6: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    refused = errno.errorcode[error.errno]
count = len(held)
for descriptor in held: os.close(descriptor)
tell([refused, count])
"""
    refused, count = await inside.python(code)
    assert refused == "EMFILE"
    assert count <= 8192
