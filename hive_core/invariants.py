"""`hive-c0re doctor --deep`: what has to be true of a hive's files, and what can safely be made true again.

Everything is read beside a running daemon too. Repairs that a daemon could be in the way of are only made
where none runs, and held off it meanwhile. What is repaired is what a start of the daemon would do as well,
or takes rights away from those who should have none; whatever could lose something is only told.
"""

import asyncio
import contextlib
import json
import os
import sqlite3
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hive_core.backup.moment import Refs, integrity_problems, refs_of
from hive_core.config_repo import ConfigRepo
from hive_core.doctor import Finding, Verdict
from hive_core.git.program import Git
from hive_core.git.repository import MAIN, commits_among, peeled_tags
from hive_core.one_daemon import is_held, locked
from hive_core.roster import CREDENTIAL_FILES
from hive_core.row_invariants import BACKUP as _BACKUP
from hive_core.row_invariants import Broken, broken_rules
from hive_core.store import schema
from hive_core.store.messages import ASIDE
from hive_core.store.migrate import VERSION_TABLE
from hive_core.untrusted import delete_tree
from hive_shared.errors import Conflict, HiveError
from hive_shared.names import MANAGER, OPERATOR, agent_of_container, is_agent_name
from hive_shared.paths import HostPaths

NIXOS_CONTAINERS: Final = Path("/etc/nixos-containers")
SHOWN: Final = 5  # of one kind
ROW_CHARACTERS: Final = 80  # of what is said of one
AGAIN_SECONDS: Final = 1.0

Repair = Callable[[], None]
Row = dict[str, Any]


@dataclass
class Report:
    """What was found, in order, and what could be done about it."""

    findings: list[Finding] = field(default_factory=list)
    repairs: list[tuple[int, Repair, bool]] = field(default_factory=list)

    def ok(self, name: str, found: str) -> None:
        self.findings.append(Finding(name, Verdict.OK, found))

    def broken(
        self, name: str, found: str, get: str, repair: Repair | None = None, *, alone: bool = True
    ) -> None:
        """`repair` may be called where no daemon runs; with `alone` false, beside one too."""
        if repair is not None:
            self.repairs.append((len(self.findings), repair, alone))
        self.findings.append(Finding(name, Verdict.BROKEN, found, get))


def examine(paths: HostPaths, *, repair: bool = False) -> list[Finding]:
    """Every finding; with `repair`, those that were repaired say so. Raises nothing for what it finds."""
    daemon = is_held(paths)
    report = _look(paths, daemon=daemon)
    if daemon and any(finding.verdict is Verdict.BROKEN for finding in report.findings):
        # Files and database are read one after the other: what a daemon changes meanwhile looks broken.
        time.sleep(AGAIN_SECONDS)
        report = _look(paths, daemon=daemon)
    if repair and report.repairs:
        with contextlib.ExitStack() as stack:
            if not daemon:
                daemon = not _keep_daemons_off(paths, stack)
            _repair(report, daemon=daemon)
    return report.findings


def _look(paths: HostPaths, *, daemon: bool) -> Report:
    report = Report()
    try:
        _Examination(paths, report, daemon=daemon).run()
    except (OSError, HiveError, sqlite3.Error) as error:
        report.broken("examination", f"it ended early: {error}", "run it as the daemon's user")
    return report


def _keep_daemons_off(paths: HostPaths, stack: contextlib.ExitStack) -> bool:
    """Until `stack` is closed none can begin; False if one has begun just now."""
    try:
        stack.enter_context(locked(paths))
    except Conflict:
        return False
    return True


def _repair(report: Report, *, daemon: bool) -> None:
    for number, work, alone in report.repairs:
        finding = report.findings[number]
        if daemon and alone:
            get = f"stop the daemon, then run this again; {finding.get}"
            report.findings[number] = Finding(finding.name, finding.verdict, finding.found, get)
            continue
        try:
            work()
        except (OSError, HiveError, sqlite3.Error) as error:
            get = f"it could not be repaired: {error}"
            report.findings[number] = Finding(finding.name, finding.verdict, finding.found, get)
            continue
        report.findings[number] = Finding(finding.name, Verdict.REPAIRED, finding.found)


class _Examination:
    """One look at everything."""

    def __init__(self, paths: HostPaths, report: Report, *, daemon: bool) -> None:
        self._paths = paths
        self._report = report
        self._daemon = daemon
        self._agents: dict[str, Row] = {}
        self._approvals: list[Row] = []

    def run(self) -> None:
        if not self._paths.database.is_file():
            there = f"{self._paths.database} does not exist"
            self._report.broken("database", there, f"`hive-c0re serve` begins a new hive; {_BACKUP}")
            return
        if not self._database():
            return
        self._directories()
        self._ports()
        for name in self._agents:
            self._repository(name)
        self._leftovers()
        self._permissions()

    # --- the database ---------------------------------------------------------

    def _database(self) -> bool:
        """Whether it can be read at all."""
        try:
            with contextlib.closing(self._connect()) as connection:
                problems = integrity_problems(connection)
                revision = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()[0]  # noqa: S608
                self._agents = {row["name"]: row for row in _rows(connection, "agent")}
                self._approvals = _rows(connection, "approval")
                leased = _count(connection, f"lease <> '{ASIDE}' AND acked_at_ms IS NULL")
                aside = _count(connection, f"lease = '{ASIDE}' AND acked_at_ms IS NULL")
                done_and_leased = _count(connection, "lease IS NOT NULL AND acked_at_ms IS NOT NULL")
                waiting = connection.execute(
                    "SELECT recipient, count(*) FROM message WHERE acked_at_ms IS NULL GROUP BY recipient"
                ).fetchall()
                broken = self._broken_rows(connection, revision)
        except (sqlite3.Error, TypeError, KeyError) as error:
            self._report.broken("database", f"cannot be read: {error}", _BACKUP)
            return False
        if problems:
            self._report.broken("database", f"is damaged: {problems[0]}", _BACKUP)
        elif revision > schema.HEAD_REVISION:
            self._report.broken(
                "database", f"migration {revision} is of a newer hyperhive", "install that one"
            )
        else:
            self._report.ok("database", f"whole, migration {revision}")
        self._messages(leased, done_and_leased, aside, waiting)
        for each in broken:
            rows = ", ".join(" ".join(row.split())[:ROW_CHARACTERS] for row in each.rows[:SHOWN])
            more = f" and {len(each.rows) - SHOWN} more" if len(each.rows) > SHOWN else ""
            repair = self._changing(each) if each.repairs else None
            self._report.broken(each.name, f"{each.found}: {rows}{more}", each.get, repair)
        if not broken and revision == schema.HEAD_REVISION:
            self._report.ok("rows", "schedules, reminders, questions, budgets and rules belong to somebody")
        return True

    def _broken_rows(self, connection: sqlite3.Connection, revision: str) -> list[Broken]:
        """Nothing of an older database, which the next start of the daemon migrates."""
        if revision != schema.HEAD_REVISION:
            return []
        served = self._daemon and self._paths.host_socket.exists()  # until then it catches up
        connection.execute("BEGIN")
        found = list(broken_rules(connection, served=served))
        connection.execute("COMMIT")
        return found

    def _changing(self, broken: Broken) -> Repair:
        def work() -> None:
            with contextlib.closing(self._connect()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                for statement, parameters in broken.repairs:
                    connection.execute(statement, parameters)
                connection.execute("COMMIT")

        return work

    def _messages(
        self, leased: int, done_and_leased: int, aside: int, waiting: list[tuple[str, int]]
    ) -> None:
        lost = {name: count for name, count in waiting if name not in self._agents and name != OPERATOR}
        if lost:
            names = ", ".join(f"{count} to {name!r}" for name, count in sorted(lost.items())[:SHOWN])
            self._report.broken(
                "messages", f"wait for nobody: {names}", "spawn an agent of that name, or leave them"
            )
        if done_and_leased:
            found = f"{done_and_leased} are done with and leased all the same"
            self._report.broken("messages", found, "--repair ends these leases", self._end_leases)
        if not lost and not done_and_leased:
            again = "in somebody's hands" if self._daemon else "leased; the next start delivers them again"
            told = [f"{leased} are {again}"] if leased else []
            told += [f"{aside} set aside; `hive-c0re questions` asks about them"] if aside else []
            self._report.ok("messages", "; ".join(told) or "all in order")

    def _end_leases(self) -> None:
        with contextlib.closing(self._connect()) as connection:
            connection.execute("UPDATE message SET lease = NULL WHERE acked_at_ms IS NOT NULL")

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._paths.database, timeout=5.0, isolation_level=None)

    # --- agents' directories and ports ----------------------------------------

    def _directories(self) -> None:
        wrong = 0
        for name in self._agents:
            parts = (
                self._paths.agent_dir(name), self._paths.state(name), self._paths.claude(name),
                self._paths.config(name), self._paths.applied(name),
            )  # fmt: skip
            for place in parts:
                if not stat.S_ISDIR(_mode(place)):
                    wrong += 1
                    what = "is missing" if not _mode(place) else "is no directory"
                    get = f"{_BACKUP}; or `hive-c0re rebuild {name}` to begin with an empty one"
                    self._report.broken("agents' directories", f"{place} {what}", get)
        for root in (self._paths.agents, self._paths.applied_root):
            for name in _names(root):
                marked = (self._paths.agent_dir(name) / "prepared").is_file()
                if name not in self._agents and not marked and not self._is_being_made(name):
                    wrong += 1
                    get = f"`hive-c0re spawn {name}` takes it up, `purge {name}` after that removes it"
                    self._report.broken("agents' directories", f"{root / name} is of no agent", get)
        if not wrong:
            self._report.ok("agents' directories", f"of {len(self._agents)} agents, all there")

    def _is_being_made(self, name: str) -> bool:
        return any(a["agent"] == name and a["status"] in ("approved", "building") for a in self._approvals)

    def _ports(self) -> None:
        wrong = 0
        ports = Counter(row["port"] for row in self._agents.values())
        for name, row in self._agents.items():
            if ports[row["port"]] > 1:
                wrong += 1
                found = f"{name} shares port {row['port']} with another agent"
                self._report.broken("ports", found, f"purge and spawn one of them; `{name}` works meanwhile")
            try:
                recorded = self._paths.port_file(name).read_text("ascii").strip()
            except (OSError, ValueError):
                recorded = ""
            if recorded != str(row["port"]):
                wrong += 1
                found = f"{self._paths.port_file(name)} says {recorded[:10]!r} and the database {row['port']}"
                self._report.broken(
                    "ports", found, f"write {row['port']} into it, then `hive-c0re rebuild {name}`"
                )
        if not wrong:
            self._report.ok("ports", "each agent has its own")

    # --- repositories ---------------------------------------------------------

    def _repository(self, name: str) -> None:
        if not (self._paths.applied(name) / ".git").is_dir():
            if self._paths.applied(name).is_dir():
                self._report.broken("configurations", f"{name} has no applied repository", _BACKUP)
            return
        try:
            refs, tags, missing = asyncio.run(self._read_repository(name))
        except (HiveError, OSError) as error:
            self._report.broken("configurations", f"{name}: its repository is damaged: {error}", _BACKUP)
            return
        before = len(self._report.findings)
        self._main(name, refs, missing)
        self._tags(name, tags, missing)
        self._system(name)
        if len(self._report.findings) == before:
            self._report.ok("configurations", f"{name}: branch, tags and files belong together")

    async def _read_repository(self, name: str) -> tuple[Refs, Refs, set[str]]:
        """Refs, tags with their commits, and those commits of approvals that are not there."""
        git = Git(self._paths.applied(name) / ".git")
        await git.run("rev-list", "--objects", "--quiet", "--all")
        wanted = sorted({a["commit_sha"] for a in self._of(name)})
        there = await commits_among(git, wanted) if wanted else []
        return await refs_of(self._paths, name), await peeled_tags(git), set(wanted) - set(there)

    def _of(self, name: str) -> list[Row]:
        return [row for row in self._approvals if row["agent"] == name and row["commit_sha"]]

    def _main(self, name: str, refs: Refs, missing: set[str]) -> None:
        main = refs.get(MAIN)
        if main is None:
            self._report.broken("configurations", f"{name} has no branch main", _BACKUP)
            return
        approvals = self._of(name)
        ran = [row for row in approvals if row["status"] == "deployed"]
        if any(row["status"] in ("approved", "building") for row in approvals) or not ran:
            return  # it is being changed, or runs what it began with
        last = max(ran, key=lambda row: row["resolved_at_ms"] or 0)["commit_sha"]
        if main != last and last not in missing:
            found = f"{name} runs {main[:12]}, and what was deployed last is {last[:12]}"
            self._report.broken("configurations", found, f"`hive-c0re rollback {name}` chooses what runs")
        self._files(name, main)

    def _files(self, name: str, main: str) -> None:
        """The files beside the repository are those of the branch."""
        config = ConfigRepo(self._paths)
        tree = asyncio.run(config.tree(name, main))
        changed = [
            path for path, file in tree.items() if _content(self._paths.applied(name) / path) != file.data
        ]
        if changed:
            found = f"{self._paths.applied(name) / changed[0]} is not what {main[:12]} says"
            get = f"--repair, or `hive-c0re rebuild {name}`, writes it again"
            self._report.broken("configurations", found, get, lambda: asyncio.run(config.place(name, main)))

    def _tags(self, name: str, tags: Refs, missing: set[str]) -> None:
        known = {row["id"] for row in self._approvals}
        for row in self._of(name):
            if row["commit_sha"] in missing:
                found = f"{name}: commit {row['commit_sha'][:12]} of approval {row['id']} is gone"
                self._report.broken("configurations", found, _BACKUP)
                continue
            for what in _tags_of(row):
                tag = f"{what}/{row['id']}"
                if tag in tags and tags[tag] != row["commit_sha"]:
                    found = (
                        f"{name}: tag {tag} names {tags[tag][:12]}, and the approval {row['commit_sha'][:12]}"
                    )
                    self._report.broken("configurations", found, _BACKUP)
                elif tag not in tags and not self._daemon:
                    found = f"{name}: tag {tag} is missing"
                    work = _tagging(self._paths, name, tag, row["commit_sha"])
                    self._report.broken("configurations", found, "the next start makes it", work)
        for tag in sorted(tags):
            number = tag.rpartition("/")[2]
            if number.isdigit() and int(number) not in known and not self._daemon:
                found = f"{name}: tag {tag} is of no approval"
                get = f"database and repository are of different times; {_BACKUP}"
                self._report.broken("configurations", found, get)

    def _system(self, name: str) -> None:
        """What building gave, which each start reads."""
        place = self._paths.system_file(name)
        get = f"`hive-c0re rebuild {name}` builds it again"
        content = _content(place)
        if content is None:
            self._report.broken("configurations", f"{place} is missing", get)
            return
        try:
            fine = isinstance(json.loads(content), dict)
        except ValueError:
            fine = False
        if not fine:
            self._report.broken("configurations", f"{place} cannot be read", get)

    # --- what is left over ----------------------------------------------------

    def _leftovers(self) -> None:
        before = len(self._report.findings)
        live = {name for name, row in self._agents.items() if not row["kept"]}
        runs = self._paths.run_root / "agents"
        for name in _names(runs):
            if name not in live and not self._is_being_made(name):
                place = runs / name
                work = _deleting(place)
                self._report.broken("left over", f"{place} is of no agent", "--repair removes it", work)
        for name in _nixos_containers():
            if name not in live and not self._is_being_made(name):
                found = f"container of {name}: there is no such agent"
                get = f"`nixos-container destroy` it, if no other hive on this machine has an agent {name}"
                self._report.broken("left over", found, get)
        if not self._daemon:
            for pid in _processes_in(self._paths):
                found = f"process {pid} has files of an agent of this hive, and no daemon runs"
                self._report.broken("left over", found, f"kill {pid}")
        if len(self._report.findings) == before:
            self._report.ok("left over", "no containers, sockets or processes without an agent")

    # --- permissions ----------------------------------------------------------

    def _permissions(self) -> None:
        before = len(self._report.findings)
        private = [
            self._paths.state_root,
            self._paths.agents,
            self._paths.builds,
            self._paths.run_root / "agents",
        ]
        private += [self._paths.agent_dir(name) for name in self._agents]
        private += [self._paths.claude(name) for name in self._agents]
        private += [self._paths.run_dir(name) for name in self._agents]
        for place in private:
            self._at_most(place, 0o700)
        for suffix in ("", "-wal", "-shm"):
            self._at_most(self._paths.database.with_name(self._paths.database.name + suffix), 0o600)
        self._at_most(self._paths.host_socket, 0o660)
        for name in self._agents:
            self._at_most(self._paths.socket(name), 0o600)
            for secret in CREDENTIAL_FILES:
                self._at_most(self._paths.claude(name) / secret, 0o600)
        if len(self._report.findings) == before:
            self._report.ok("permissions", "secrets and sockets are private")

    def _at_most(self, place: Path, allowed: int) -> None:
        mode = _mode(place)
        if not mode or stat.S_ISLNK(mode) or not stat.S_IMODE(mode) & ~allowed & 0o777:
            return
        found = f"{place} has mode {stat.S_IMODE(mode):04o}"
        self._report.broken(
            "permissions", found, f"chmod {allowed:o} {place}", _narrowing(place, allowed), alone=False
        )


# --- reading ----------------------------------------------------------------


def _rows(connection: sqlite3.Connection, table: str) -> list[Row]:
    found = connection.execute(f"SELECT * FROM {table}")  # noqa: S608 - names of ours
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found]


def _count(connection: sqlite3.Connection, where: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM message WHERE {where}").fetchone()[0])  # noqa: S608


def _tags_of(row: Row) -> list[str]:
    """What the approval's state asks for, as far as it is not still being done."""
    status, decided = row["status"], row["resolved_by"] is not None
    tags = ["proposal"]
    if status == "deployed" or (status == "failed" and decided):
        tags.append("approved")
    return [*tags, status] if status in ("deployed", "failed", "denied") else tags


def _names(directory: Path) -> Iterator[str]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    yield from (name for name in names if name == MANAGER or is_agent_name(name))


def _mode(place: Path) -> int:
    try:
        return os.lstat(place).st_mode
    except OSError:
        return 0


def _content(place: Path) -> bytes | None:
    try:
        with os.fdopen(
            os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb"
        ) as file:
            return file.read()
    except OSError:
        return None


def _nixos_containers() -> Iterator[str]:
    for conf in sorted(NIXOS_CONTAINERS.glob("*.conf")):
        agent = agent_of_container(conf.stem)
        if agent is not None and conf.stem != agent:  # others may be called as the manager is
            yield agent


def _processes_in(paths: HostPaths) -> Iterator[int]:
    """Processes other than ours in whose file systems an agent's state is mounted for itself."""
    wanted = f"{paths.agents.absolute()}/"
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{entry}/mountinfo", errors="replace") as mounts:
            if any(line.split()[3].startswith(wanted) and "/state" in line.split()[3] for line in mounts):
                yield int(entry)


# --- repairs ----------------------------------------------------------------


def _tagging(paths: HostPaths, name: str, tag: str, sha: str) -> Repair:
    return lambda: asyncio.run(ConfigRepo(paths).tag(name, tag, sha))


def _deleting(place: Path) -> Repair:
    def work() -> None:
        left = delete_tree(place)
        if left:
            raise OSError(left[0])

    return work


def _narrowing(place: Path, allowed: int) -> Repair:
    """Take rights away, of what is there and not of what a link there leads to."""

    def work() -> None:
        holder = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            mode = os.fstat(holder).st_mode
            if stat.S_ISLNK(mode) or (stat.S_ISREG(mode) and os.fstat(holder).st_nlink > 1):
                raise OSError(f"{place} has become something else")
            os.chmod(f"/proc/self/fd/{holder}", stat.S_IMODE(mode) & allowed)
        finally:
            os.close(holder)

    return work
