"""The conf of a NixOS container: what is kept, what is ours, and what others make of it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_core.config import AgentLimits
from hive_core.containers.base import Bind
from hive_core.containers.nixos_conf import MARK, Conf, Confs, check_path, network_values, nspawn_flags
from hive_core.containers.nixos_status import Unit, how_it_ended, parse_listing
from hive_core.containers.nixos_unit import drop_in_text, remove_drop_in, write_drop_in
from hive_shared.errors import BadRequest, Conflict, HiveError
from tests.conftest import need

STATE = Path("/var/lib/hyperhive")
AS_CREATED = """\
PRIVATE_NETWORK=1
HOST_ADDRESS=10.233.1.1
LOCAL_ADDRESS=10.233.1.2
HOST_BRIDGE=
HOST_PORT=
AUTO_START=0
FLAKE=path:/var/lib/hyperhive/nixos/flakes/alice/0123/flake
"""


@pytest.fixture
def confs(tmp_path: Path) -> Confs:
    return Confs(tmp_path, STATE, STATE / "nixos/flakes")


# --- keys ---


def test_unknown_keys_comments_and_their_order_are_kept() -> None:
    conf = Conf("# by hand\nZ=1\nPRIVATE_NETWORK=1\n\nA='two words'\nno assignment\nB=\"x\\\ny\"\n")
    changed = conf.replaced({"PRIVATE_NETWORK": "0", "EXTRA_NSPAWN_FLAGS": "--bind=/a:/b --bind-ro=/c:/d"})
    assert changed.text == (
        "# by hand\nZ=1\nPRIVATE_NETWORK=0\n\nA='two words'\nno assignment\nB=\"x\\\ny\"\n"
        'EXTRA_NSPAWN_FLAGS="--bind=/a:/b --bind-ro=/c:/d"\n'
    )


def test_a_second_assignment_of_ours_would_win_and_is_taken_out() -> None:
    conf = Conf("AUTO_START=0\nX=1\nAUTO_START=1\n").replaced({"AUTO_START": "0"})
    assert conf.text == "AUTO_START=0\nX=1\n"


def test_what_looks_like_ours_within_quotes_of_another_is_not() -> None:
    text = 'NOTE="first\nAUTO_START=1\nlast"\nNEXT=it\\\nAUTO_START=1\n'
    conf = Conf(text)
    assert conf.value("AUTO_START") is None
    assert conf.replaced({"AUTO_START": "0"}).text == text + "AUTO_START=0\n"


def test_a_file_without_a_last_line_end_gets_one() -> None:
    assert Conf("A=1").replaced({"B": "2"}).text == "A=1\nB=2\n"


def test_replacing_twice_changes_nothing_more() -> None:
    values = {"EXTRA_NSPAWN_FLAGS": "--bind=/a:/b --bind=/c:/d", "AUTO_START": "0"}
    once = Conf(AS_CREATED).replaced(values)
    assert once.replaced(values) == once
    assert once.value("EXTRA_NSPAWN_FLAGS") == values["EXTRA_NSPAWN_FLAGS"]


@pytest.mark.parametrize("text", ['A="\nB=1\n', "A='", "; comment \\", "A=1 \\"])
def test_a_conf_that_would_swallow_ours_is_an_error(text: str) -> None:
    with pytest.raises(HiveError, match="does not end"):
        Conf(text).replaced({"OURS": "1"})


@given(st.text(alphabet="AZ_=\"'\\# ;\n\t$`x", max_size=60))
def test_no_conf_that_is_there_is_lost_or_misread(text: str) -> None:
    try:
        changed = Conf(text).replaced({"OURS": "1"})
    except HiveError as error:
        assert "does not end" in error.message
        assert text.endswith("\\") or set(text) & {"'", '"'}
        return
    assert changed.value("OURS") == "1"
    assert changed.replaced({"OURS": "1"}) == changed
    assert changed.text.replace("OURS=1\n", "").rstrip("\n") == text.rstrip("\n")


@pytest.mark.parametrize("value", ["two\nlines", "tab\t", "nul\0", "ümlaut", "\x1b[2J"])
def test_a_value_that_no_conf_can_hold_is_refused(value: str) -> None:
    with pytest.raises(BadRequest, match="FLAKE"):
        Conf().replaced({"FLAKE": value})


# --- paths ---

PLAIN = ["/", "/run/hive", "/var/lib/hyperhive/agents/a-b_c.d/state", "/x@y+z=1,2~3"]
REFUSED = [
    "/with space", "/tab\there", "/line\nbreak", "/quo'te", '/quo"te', "/back\\slash", "/co:lon", "/do$llar",
    "/ti`ck", "/st*r", "/que?tion", "/[set]", "/{a,b}", "/per%cent", "/ha#sh", "/se;mi", "/a&b", "/a|b",
    "/ümlaut",
    "relative", "", "/a/../b", "/a//b", "/a/./b", "/trailing/\n",
]  # fmt: skip


@pytest.mark.parametrize("path", PLAIN)
def test_plain_paths_pass(path: str) -> None:
    assert check_path(Path(path)) == path


@pytest.mark.parametrize("path", REFUSED)
def test_other_paths_are_refused_by_name(path: str) -> None:
    class Raw(type(Path())):  # type: ignore[misc]
        """A path that is not tidied up on its way."""

        def __str__(self) -> str:
            return path

    with pytest.raises(BadRequest, match="cannot be given to a container"):
        check_path(Raw())


def test_flags_are_what_a_shell_splits_them_into() -> None:
    """As the start script does: unquoted, so that words are split and patterns expanded."""
    binds = [Bind(Path("/run/x"), Path("/run/hive"), writable=True), Bind(Path("/a"), Path("/applied"))]
    flags = nspawn_flags(binds, private_users=True)
    script = 'for flag in $EXTRA_NSPAWN_FLAGS; do printf "%s\\n" "$flag"; done'
    done = subprocess.run(
        ["/bin/sh", "-c", script], env={"EXTRA_NSPAWN_FLAGS": " ".join(flags)}, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [
        "--tmpfs=/nix/var/nix/daemon-socket:ro,mode=0000",
        "--tmpfs=/dev/shm:mode=1777,nosuid,nodev,size=268435456",
        "--system-call-filter=~io_uring_setup",
        "--system-call-filter=~io_uring_enter",
        "--system-call-filter=~io_uring_register",
        "--bind=/run/x:/run/hive:idmap",
        "--bind-ro=/a:/applied",
    ]


def test_systemd_reads_from_it_what_we_wrote(tmp_path: Path) -> None:
    """With systemd's own parser of environment files, which `systemd-run` and others share."""
    need(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    unit = tmp_path / "try.service"
    conf = Conf(AS_CREATED + 'OTHER="a b"\n').replaced({"EXTRA_NSPAWN_FLAGS": "--bind=/a:/b --bind=/c:/d"})
    (tmp_path / "conf").write_text(conf.text)
    unit.write_text(f"[Service]\nExecStart=/bin/true\nEnvironmentFile={tmp_path}/conf\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert "conf" not in done.stderr


# --- whose it is ---


def test_a_conf_is_ours_from_the_moment_that_nixos_container_wrote_it(confs: Confs) -> None:
    confs.path("h-alice").write_text(AS_CREATED)
    assert confs.has("h-alice")


@pytest.mark.parametrize(
    "text",
    [
        "",
        AS_CREATED.replace("/var/lib/hyperhive/", "/var/lib/another/"),
        f"{MARK}=/var/lib/another\n",
        f"# {MARK}={STATE}\n",
        f'NOTE="\n{MARK}={STATE}\n"\n',
    ],
)
def test_a_conf_of_somebody_else_is_not_ours(confs: Confs, text: str) -> None:
    confs.path("h-alice").write_text(text)
    assert not confs.has("h-alice")
    with pytest.raises(Conflict, match="h-alice was not made by this hive"):
        confs.read("h-alice")


def test_a_link_is_not_ours_whatever_it_leads_to(confs: Confs, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(AS_CREATED)
    confs.path("h-alice").symlink_to(tmp_path / "elsewhere")
    assert not confs.has("h-alice")


def test_writing_is_one_rename_and_leaves_nothing_beside(confs: Confs, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        confs.path("h-alice").write_text(AS_CREATED)
        confs.write("h-alice", Conf("A=1\n"))
    finally:
        os.umask(before)
    assert [path.name for path in tmp_path.iterdir()] == ["h-alice.conf"]
    assert confs.path("h-alice").stat().st_mode & 0o777 == 0o644


def test_a_conf_that_cannot_be_written_is_an_error_with_its_path(tmp_path: Path) -> None:
    confs = Confs(tmp_path / "absent", STATE, STATE)
    with pytest.raises(HiveError, match=r"absent/h-alice\.conf"):
        confs.write("h-alice", Conf("A=1\n"))


# --- network ---


def test_on_the_hosts_network_everything_that_would_make_another_is_cleared(confs: Confs) -> None:
    conf = Conf(AS_CREATED + "HOST_ADDRESS6=fc00::1\nHOST_BRIDGE=br0\n")
    changed = conf.replaced(network_values(conf, confs, private=False))
    assert changed.value("PRIVATE_NETWORK") == "0"
    for key in ("HOST_ADDRESS", "LOCAL_ADDRESS", "HOST_ADDRESS6", "LOCAL_ADDRESS6", "HOST_BRIDGE"):
        assert changed.value(key) == ""


def test_a_private_network_keeps_its_addresses_or_gets_free_ones(confs: Confs) -> None:
    assert network_values(Conf(AS_CREATED), confs, private=True)["LOCAL_ADDRESS"] == "10.233.1.2"
    confs.path("other").write_text(AS_CREATED)
    fresh = network_values(Conf("HOST_ADDRESS=\n"), confs, private=True)
    assert (fresh["HOST_ADDRESS"], fresh["LOCAL_ADDRESS"]) == ("10.233.2.1", "10.233.2.2")


def test_there_are_254_pairs_of_addresses(confs: Confs) -> None:
    for number in range(1, 255):
        confs.path(f"c{number}").write_text(f"HOST_ADDRESS=10.233.{number}.1\n")
    with pytest.raises(HiveError, match="254 containers"):
        confs.free_addresses()


# --- the unit ---


def test_the_drop_in_is_written_only_when_it_changes(tmp_path: Path) -> None:
    limits = AgentLimits(memory_max_bytes=2**30, tasks_max=99, cpu_quota_percent=150)
    text = drop_in_text(limits, stop_grace_seconds=2.5)
    assert {
        "MemoryMax=1073741824",
        "TasksMax=99",
        "CPUQuota=150%",
        "TimeoutStopSec=2.5s",
        "Restart=no",
    } <= set(text.splitlines())
    assert write_drop_in(tmp_path, "h-alice", text)
    assert not write_drop_in(tmp_path, "h-alice", text)
    assert (tmp_path / "container@h-alice.service.d/50-hyperhive.conf").read_text() == text
    assert write_drop_in(tmp_path, "h-alice", text.replace("99", "98"))
    remove_drop_in(tmp_path, "h-alice")
    remove_drop_in(tmp_path, "h-alice")
    assert list(tmp_path.iterdir()) == []


def test_systemd_takes_the_drop_in(tmp_path: Path) -> None:
    need(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    (tmp_path / "container@.service").write_text("[Service]\nExecStart=/bin/true\nRestart=on-failure\n")
    write_drop_in(
        tmp_path, "h-alice", drop_in_text(AgentLimits(cpu_quota_percent=50), stop_grace_seconds=2.5)
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "container@h-alice.service"],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "50-hyperhive" not in done.stderr, done.stderr


# --- the listing ---

LISTING = """\
Id=container@h-alice.service
ActiveState=active
InvocationID=aaaa
MainPID=77
Result=success
ExecMainCode=0
ExecMainStatus=0
ActiveEnterTimestampMonotonic=5000000
InactiveEnterTimestampMonotonic=0

Id=container@web.service
ActiveState=failed
InvocationID=bbbb
MainPID=0
Result=exit-code
ExecMainCode=1
ExecMainStatus=3
ActiveEnterTimestampMonotonic=5000000
InactiveEnterTimestampMonotonic=7500000
"""


def test_a_listing_is_read_unit_by_unit() -> None:
    units = parse_listing(LISTING)
    assert set(units) == {"h-alice", "web"}
    assert units["h-alice"].is_up
    assert (units["h-alice"].pid, units["h-alice"].invocation) == (77, "aaaa")
    assert not units["web"].is_up
    assert units["web"].ran_seconds == 2.5


@pytest.mark.parametrize("text", ["", "\n\n", "garbage", "Id=ssh.service\nActiveState=active\n", "Id=\n=\n"])
def test_a_listing_of_something_else_is_empty(text: str) -> None:
    assert parse_listing(text) == {}


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        (Unit("failed", result="exit-code", code=1, status=3), "exit code 3"),
        (Unit("failed", result="signal", code=2, status=9), "killed by SIGKILL"),
        (Unit("failed", result="core-dump", code=3, status=11), "killed by SIGSEGV, core dumped"),
        (Unit("failed", result="oom-kill", code=2, status=9), "out of memory"),
        (Unit("failed", result="timeout"), "timeout"),
        (Unit("inactive"), "it exited by itself"),
    ],
)
def test_how_it_ended_is_told_in_words(unit: Unit, words: str) -> None:
    assert how_it_ended(unit) == words
