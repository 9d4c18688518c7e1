"""Every command: what it asks of the daemon, what it prints, how it ends."""

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hive_core import cli
from hive_core.agent_status import OF_CONTAINER
from hive_shared import wire
from hive_shared.client import Client, NotReachable
from hive_shared.errors import Conflict, UnknownAgent, UnknownRecipient
from hive_shared.sockets import listen
from tests.support.host_surface import STATUS, HostSurface, forever, until


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hive_core.cli_approvals.PROGRESS_SECONDS", 0.01)
    monkeypatch.setattr("hive_core.cli_command.PROGRESS_SECONDS", 0.01)


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostSurface]:
    with HostSurface(tmp_path / "run" / "host.sock").running() as surface:
        surface.replies["pending"] = wire.ApprovalList(approvals=[approval()])
        surface.replies["history"] = RAN
        yield surface


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `hive-c0re` on the hive under tmp_path, with `stdin` as its input."""

    def _run(*arguments: str, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            cli.main(["--root", str(tmp_path), *arguments])
        said = capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    return _run


def agent(name: str = "alice", **fields: Any) -> wire.AgentView:
    usual: dict[str, Any] = {
        "role": "agent",
        "container": f"h-{name}",
        "host": "local",
        "port": 8142,
        "state": wire.AgentState.RUNNING,
        "since_ms": 1,
    }
    given = {**usual, **fields}
    state, of_harness = wire.AgentState(given["state"]), wire.AgentStatus.IDLE
    given.setdefault("status", OF_CONTAINER.get(state, of_harness))
    return wire.AgentView(name=name, **given)


def approval(number: int = 7, status: str = "pending", **fields: Any) -> wire.ApprovalView:
    usual: dict[str, Any] = {
        "kind": "spawn",
        "agent": "alice",
        "status": status,
        "requested_by": "hm1nd",
        "requested_at_ms": 1,
    }
    return wire.ApprovalView(id=number, **{**usual, **fields})


def message(number: int, body: str, **fields: Any) -> wire.Message:
    usual: dict[str, Any] = {"sender": "alice", "to": "operator", "sent_at_ms": 1}
    return wire.Message(id=number, body=body, **{**usual, **fields})


def question(number: int = 3, **fields: Any) -> wire.QuestionView:
    usual: dict[str, Any] = {
        "asker": "alice",
        "question": "tea?",
        "options": [],
        "multi": False,
        "asked_at_ms": 1,
    }
    return wire.QuestionView(id=number, **{**usual, **fields})


def session() -> wire.SessionView:
    client = "Mozilla/5.0 \x1b[2J"
    times = {"created_at_ms": 1, "last_seen_ms": 2, "ends_at_ms": 3}
    return wire.SessionView(id="0a1b2c3d", client=client, **times)


def figures(agent: str | None = None) -> wire.StatsReport:
    sums: dict[str, Any] = {
        "turns": 4, "ok": 3, "duration_ms": 50_000, "longest_ms": 41_200, "input_tokens": 950,
        "cache_read_tokens": 212_000, "cache_creation_tokens": 8_800, "output_tokens": 2_350,
        "cost_usd": 0.75,
    }  # fmt: skip
    return wire.StatsReport(
        agent=agent,
        since_ms=1,
        until_ms=2,
        bucket_ms=3_600_000,
        totals=wire.UsageSums(**sums),
        median_ms=850,
        p95_ms=125_000,
        buckets=[wire.UsageBucket(start_ms=0, messages=12, approved=2, **sums)],
        agents=[] if agent else [wire.AgentUsage(agent="alice", unread=3, kept=True, **sums)],
        models=[wire.ModelUsage(model="sonnet \x1b[2J", **sums)],
        tools=[wire.ToolUse(tool="Bash", calls=12)],
        unread=3,
    )


PERMISSIONS = wire.PermissionList(
    requests=[
        wire.PermissionView(
            id=5,
            agent="alice",
            tool="Bash",
            input='{"command": "rm x\\nrm y \\u001b[2J"}',
            cwd="/state",
            reason="to tidy \x1b[2J",
            message_id=4,
            asked_at_ms=1,
            rule="Bash(rm x)",
        )
    ],
    rules=[
        wire.PermissionRuleView(
            id=2, agent="alice", decision="allow", rule="*", made_at_ms=1, made_by="operator"
        )
    ],
    configured=[
        wire.ConfiguredRules(
            agent="alice",
            rules=[
                wire.ConfiguredRule(
                    decision="deny", rule="Bash(\x1b[2J)", option="hyperhive.permissions.deny"
                )
            ],
            is_policy=True,
            default="ask",
            more=2,
        ),
        wire.ConfiguredRules(agent="bob", problem="bob.json\x1b[2J is no regular file"),
    ],
)
SCHEDULE = wire.ScheduleView(
    id=3,
    agent="alice",
    cron="0 9 * * mon-fri",
    timezone="Europe/Berlin",
    body="write a summary\nand be short",
    means="At 09:00 on Monday through Friday",
    made_at_ms=1,
    made_by="operator",
    next_runs_ms=[1_900_000_000_000, 1_900_086_400_000],
    last_at_ms=1,
    last_outcome="skipped",
    last_message_id=17,
    missed=2,
)
REMINDER = wire.ReminderView(
    id=4, agent="alice", body="look \x1b[2J again", due_at_ms=1_900_000_000_000, set_at_ms=1
)
COMMIT, OLDER = "1a2b3c4d5e" * 4, "9f8e7d6c5b" * 4
RAN = wire.Deployments(
    deployments=[
        wire.Deployment(approval_id=6, commit=COMMIT, message="Add ripgrep", deployed_at_ms=3, running=True),
        wire.Deployment(approval_id=5, commit=COMMIT, message="Add ripgrep", deployed_at_ms=2),
        wire.Deployment(
            approval_id=2, commit=OLDER, message="Begin", deployed_at_ms=1, approved_by="operator"
        ),
    ]
)
FILES = [
    wire.FileDiff(path="agent.nix", change="modified", added=1, deleted=1, text="@@ -1 +1 @@\n-a\n+b\n"),
    wire.FileDiff(path="bin/run", change="modified", mode="100644 → 100755"),
]


def change(number: int = 7, status: str = "pending", **fields: Any) -> wire.ApprovalView:
    """An approval of a commit."""
    usual: dict[str, Any] = {"kind": "apply_commit", "commit": COMMIT, "message": "Add fd\n\nIt finds."}
    return approval(number, status, **{**usual, **fields})


def summary(asked: wire.ApprovalView | None = None, **fields: Any) -> wire.DiffSummary:
    usual: dict[str, Any] = {"base": "running", "base_commit": OLDER, "files": 2, "added": 1, "deleted": 1}
    return wire.DiffSummary(approval=asked or change(), **{**usual, **fields})


LOGIN = wire.LoginUrl(url="http://127.0.0.1:7000/login#c0de", code="c0de", expires_at_ms=10**13)
DONE = wire.AgentDone(agent=agent(), note="as you wished")


# --- what is asked, and what is shown ---------------------------------------

LOGIN_WAITS = wire.WaitingEntry(
    kind=wire.WaitingKind.LOGIN,
    id="bob",
    who="bob",
    summary="bob needs a login",
    since_ms=1,
    otherwise="bob does nothing",
    link="agents/bob/",
)

BUDGETS = wire.BudgetList(
    budgets=[
        wire.BudgetView(
            agent="alice",
            turns=wire.BudgetAmount(used=200, limit=200, own=True),
            tokens=wire.BudgetAmount(used=1_234_567, limit=5_000_000),
            day_ends_at_ms=1,
            day_ends="00:00 Europe/Berlin",
            stopped=True,
            reached=["turns"],
        )
    ],
    default=wire.BudgetView(
        agent="", tokens=wire.BudgetAmount(limit=5_000_000), day_ends_at_ms=1, day_ends="00:00 Europe/Berlin"
    ),
)
REQUESTS = [
    (["status"], wire.DaemonStatus(), STATUS),
    (["url"], wire.MakeLoginUrl(), LOGIN),
    (["list"], wire.ListAgents(), wire.AgentList(agents=[agent()])),
    (["list", "--all"], wire.ListAgents(tombstones=True), wire.AgentList(agents=[agent()])),
    (["pending"], wire.Pending(), wire.ApprovalList(approvals=[approval()])),
    (["pending", "--all"], wire.Pending(all=True), wire.ApprovalList(approvals=[approval()])),
    (["approve", "7"], wire.Approve(approval_id=7), wire.ApprovalAsked(approval=approval(status="deployed"))),
    (
        ["approve", "7", "--no-wait"],
        wire.Approve(approval_id=7),
        wire.ApprovalAsked(approval=approval(status="approved")),
    ),
    (
        ["approve", "7", "--note", "for this week"],
        wire.Approve(approval_id=7, note="for this week"),
        wire.ApprovalAsked(approval=approval(status="deployed")),
    ),
    (
        ["deny", "7", "--note", "not now"],
        wire.Deny(approval_id=7, note="not now"),
        wire.ApprovalAsked(approval=approval(status="denied")),
    ),
    (["build-log", "7"], wire.BuildLog(approval_id=7), wire.LogLines(lines=["one"])),
    (["history", "alice"], wire.History(name="alice"), RAN),
    (
        ["rollback", "alice", "2"],
        wire.Rollback(name="alice", approval_id=2),
        wire.ApprovalAsked(approval=change(8, "deployed", rollback=True)),
    ),
    (["spawn", "alice"], wire.Spawn(name="alice"), DONE),
    (
        ["request-spawn", "alice", "--note", "to help"],
        wire.RequestSpawn(name="alice", note="to help"),
        wire.ApprovalAsked(approval=approval()),
    ),
    (["kill", "alice"], wire.Kill(name="alice"), DONE),
    (["start", "alice"], wire.Start(name="alice"), DONE),
    (["restart", "alice"], wire.Restart(name="alice"), DONE),
    (["rebuild", "alice"], wire.Rebuild(name="alice"), DONE),
    (["update-all"], wire.RebuildAll(), wire.AgentList(agents=[agent()])),
    (["destroy", "alice", "--yes"], wire.Destroy(name="alice"), DONE),
    (["destroy", "alice", "--confirm", "alice"], wire.Destroy(name="alice"), DONE),
    (["purge", "alice", "--confirm", "alice"], wire.Destroy(name="alice", purge=True), DONE),
    (["send", "alice", "hello"], wire.Send(to="alice", body="hello"), wire.Sent(ids=[12])),
    (
        ["send", "alice", "hello", "--in-reply-to", "4"],
        wire.Send(to="alice", body="hello", in_reply_to=4),
        wire.Sent(ids=[12]),
    ),
    (["inbox"], wire.Inbox(), wire.MessageList(messages=[message(1, "hello")])),
    (["inbox", "-n", "3"], wire.Inbox(limit=3), wire.MessageList(messages=[message(1, "hello")])),
    (["questions"], wire.Questions(), wire.QuestionList(questions=[question()])),
    (
        ["questions", "--all"],
        wire.Questions(all=True),
        wire.QuestionList(questions=[question(), question(4, answerer="bob", message_id=12)]),
    ),
    (["answer", "3", "yes"], wire.Answer(question_id=3, answer="yes"), wire.Empty()),
    (["cancel-question", "3"], wire.CancelQuestion(question_id=3), wire.Empty()),
    (["messages"], wire.Messages(), wire.MessageList(messages=[message(1, "hello")])),
    (["messages", "--limit", "9"], wire.Messages(limit=9), wire.MessageList(messages=[message(1, "hello")])),
    (
        ["thread", "1"],
        wire.Thread(message_id=1),
        wire.MessageThread(messages=[message(1, "hello"), message(2, "yes", in_reply_to=1)], cut=True),
    ),
    (["waiting"], wire.Waiting(), wire.WaitingList(entries=[LOGIN_WAITS], total=1)),
    (
        ["notes", "alice"],
        wire.Notes(name="alice"),
        wire.NoteList(notes=[wire.NoteFile(path="notes.md", size_bytes=2000, changed_at_ms=1)], left_out=3),
    ),
    (
        ["notes", "alice", "notes/plan.md"],
        wire.ReadNote(name="alice", path="notes/plan.md"),
        wire.NoteText(
            path="notes/plan.md", text="build\n", size_bytes=200_000, changed_at_ms=1, truncated=True
        ),
    ),
    (["new-session", "alice"], wire.NewSession(name="alice"), wire.Empty()),
    (["dismiss", "3"], wire.Dismiss(approval_id=3), wire.Empty()),
    (["schedules", "list"], wire.Schedules(), wire.ScheduleList(schedules=[SCHEDULE])),
    (
        ["schedules", "add", "0 9 * * mon-fri", "alice", "write a summary", "--timezone", "Europe/Berlin"],
        wire.AddSchedule(
            name="alice", cron="0 9 * * mon-fri", body="write a summary", timezone="Europe/Berlin"
        ),
        SCHEDULE,
    ),
    (
        ["schedules", "preview", "0 9 * * *", "--timezone", "UTC"],
        wire.PreviewSchedule(cron="0 9 * * *"),
        wire.SchedulePreview(means="At 09:00 every day", next_runs_ms=[1_900_000_000_000]),
    ),
    (["schedules", "pause", "3"], wire.PauseSchedule(schedule_id=3), SCHEDULE),
    (["schedules", "resume", "3"], wire.ResumeSchedule(schedule_id=3), SCHEDULE),
    (["schedules", "run", "3"], wire.RunSchedule(schedule_id=3), SCHEDULE),
    (["schedules", "remove", "3"], wire.RemoveSchedule(schedule_id=3), SCHEDULE),
    (["reminders", "list"], wire.Reminders(), wire.ReminderList(reminders=[REMINDER])),
    (["reminders", "list", "alice"], wire.Reminders(name="alice"), wire.ReminderList(reminders=[REMINDER])),
    (["reminders", "cancel", "4"], wire.CancelReminder(reminder_id=4), REMINDER),
    (["budgets"], wire.Budgets(), BUDGETS),
    (["budget", "alice"], wire.Budgets(), BUDGETS),
    (
        ["budget", "alice", "--turns", "200", "--tokens", "1.5M", "--dollars", "none"],
        wire.SetBudget(name="alice", turns=200, tokens=1_500_000, microdollars=0),
        BUDGETS.budgets[0],
    ),
    (
        ["budget", "alice", "--default", "--dollars", "7.50"],
        wire.SetBudget(name="alice", microdollars=7_500_000, default=True),
        BUDGETS.budgets[0],
    ),
    (
        ["budget", "alice", "--again"],
        wire.AnswerBudget(name="alice", answer=wire.BudgetAnswer.AGAIN),
        BUDGETS.budgets[0],
    ),
    (
        ["budget", "alice", "--one-turn"],
        wire.AnswerBudget(name="alice", answer=wire.BudgetAnswer.ONE_TURN),
        BUDGETS.budgets[0],
    ),
    (
        ["budget", "alice", "--wait"],
        wire.AnswerBudget(name="alice", answer=wire.BudgetAnswer.WAIT),
        BUDGETS.budgets[0],
    ),
    (["permissions", "list"], wire.Permissions(), PERMISSIONS),
    (
        ["permissions", "allow", "5"],
        wire.AnswerPermission(permission_id=5, scope=wire.PermissionScope.ONCE),
        PERMISSIONS.requests[0],
    ),
    (
        ["permissions", "allow", "5", "--always", "--rule", "Bash(rm *)"],
        wire.AnswerPermission(permission_id=5, scope=wire.PermissionScope.ALWAYS, rule="Bash(rm *)"),
        PERMISSIONS.requests[0],
    ),
    (
        ["permissions", "deny", "5", "not today"],
        wire.AnswerPermission(permission_id=5, message="not today"),
        PERMISSIONS.requests[0],
    ),
    (
        ["permissions", "rule", "alice", "Bash(rm *)", "--deny"],
        wire.AddPermissionRule(name="alice", decision="deny", rule="Bash(rm *)"),
        PERMISSIONS.rules[0],
    ),
    (
        ["permissions", "bypass", "alice"],
        wire.AddPermissionRule(name="alice", decision="allow", rule="*"),
        PERMISSIONS.rules[0],
    ),
    (["permissions", "remove", "2"], wire.RemovePermissionRule(rule_id=2), PERMISSIONS.rules[0]),
    (
        ["notify", "test"],
        wire.NotifyTest(),
        wire.NotifyTested(outcomes=[wire.NotifyOutcome(target="ntfy:// of line 1", ok=True)]),
    ),
    (["logs", "alice"], wire.Logs(name="alice"), wire.LogLines(lines=["one"])),
    (["logs", "alice", "-n", "5"], wire.Logs(name="alice", lines=5), wire.LogLines(lines=["one"])),
    (["stats"], wire.Stats(since_seconds=86_400), figures()),
    (["stats", "--since", "all"], wire.Stats(), figures()),
    (
        ["stats", "--agent", "alice", "--since", "7d"],
        wire.Stats(agent="alice", since_seconds=7 * 86_400),
        figures("alice"),
    ),
    (["metrics"], wire.Metrics(), wire.MetricsText(text="hive_open_questions 0.0\n")),
    (["sessions"], wire.Sessions(), wire.SessionList(sessions=[session()])),
    (["logout", "0a1b2c3d"], wire.EndSession(session_id="0a1b2c3d"), wire.LoggedOut(sessions=1)),
    (["logout-all"], wire.LogoutAll(), wire.LoggedOut(sessions=2)),
]
each_request = pytest.mark.parametrize(
    ("arguments", "request_made", "result"), REQUESTS, ids=[" ".join(entry[0]) for entry in REQUESTS]
)


@each_request
def test_a_command_makes_its_request_and_prints_the_answer(
    run: Run, host: HostSurface, arguments: list[str], request_made: Any, result: Any
) -> None:
    host.replies[request_made.op] = result
    ended = run(*arguments)
    assert (ended.code, ended.err.count("error")) == (0, 0)
    assert host.asked(request_made.op)[0].model_copy(update={"id": None}) == request_made
    assert ended.out.strip()


@each_request
def test_with_json_a_command_prints_the_result_as_it_was_on_the_wire(
    run: Run, host: HostSurface, arguments: list[str], request_made: Any, result: Any
) -> None:
    host.replies[request_made.op] = result
    assert run(*arguments, "--json").json == result.model_dump(mode="json")
    assert run("--json", *arguments).json == result.model_dump(mode="json")


def test_every_operation_of_the_host_surface_has_a_command(run: Run, host: HostSurface) -> None:
    asked = {request.op for _, request, _ in REQUESTS}
    assert asked | {"diff"} == set(wire.SURFACES[wire.Surface.HOST])


def test_the_table_of_agents_says_what_matters(run: Run, host: HostSurface) -> None:
    report = wire.HarnessReport(
        badge=wire.Badge.RATE_LIMITED, backend="claude", model="sonnet", note="until 9"
    )
    told = {"status": wire.AgentStatus.WAITING_FOR_LIMIT, "status_until_ms": 1, "status_note": "until 9"}
    more = {"needs_update": True, "unread": 12, "isolation": "bubblewrap", "restarts": 2}
    host.replies["list"] = wire.AgentList(agents=[agent(report=report, **told, **more)])
    out = run("list").out
    assert out.count("until 9") == 1
    for word in ("alice", "waiting for limit until 19", "12", "8142", "h-alice (bubblewrap)"):
        assert word in out
    for note in ("claude sonnet", "needs update", "restarted 2 times", "until 9"):
        assert note in out


def test_the_table_of_figures_keeps_tokens_apart_and_says_who_is_gone(run: Run, host: HostSurface) -> None:
    host.replies["stats"] = figures()
    out = run("stats").out
    for words in ("alice (destroyed)", "75 %", "12.5 s", "950", "212.0k", "8.8k", "2.4k", "$0.75"):
        assert words in out
    assert "sonnet ␛[2J" in out
    for words in ("median 850 ms, 95 % 2m 05s, longest 41.2 s", "Bash 12", "2 approved"):
        assert words in out


def test_figures_of_nothing_say_when_there_will_be_some(run: Run, host: HostSurface) -> None:
    host.replies["stats"] = figures().model_copy(update={"totals": wire.UsageSums(), "models": []})
    ended = run("stats")
    assert (ended.code, "when an agent has worked on its first message" in ended.err) == (0, True)


@pytest.mark.parametrize("since", ["", "7", "d", "-1d", "0m", "30s", "401d", "1y", "7d ", "٧d", "ALL"])
def test_a_time_that_makes_no_sense_is_wrong_usage(run: Run, host: HostSurface, since: str) -> None:
    ended = run("stats", f"--since={since}")
    assert (ended.code, host.requests) == (2, [])
    assert "90m, 24h, 7d" in ended.err


def test_tables_in_a_pipe_are_not_folded(run: Run, host: HostSurface) -> None:
    host.replies["list"] = wire.AgentList(agents=[agent(note="word " * 60 + "end")])
    assert len(run("list").out.splitlines()) == 2


def test_an_empty_list_says_what_to_do_on_stderr_and_nothing_on_stdout(run: Run, host: HostSurface) -> None:
    ended = run("list")
    assert (ended.code, ended.out) == (0, "")
    assert "hive-c0re spawn NAME" in ended.err


def test_url_prints_the_address_alone(run: Run, host: HostSurface) -> None:
    host.replies["login_url"] = LOGIN
    assert run("url").out == LOGIN.url + "\n"


def test_rehearsal_is_labelled_as_not_a_model(run: Run, host: HostSurface) -> None:
    host.replies["status"] = STATUS
    assert "not a model" in run("status").out


def test_a_question_shows_its_options(run: Run, host: HostSurface) -> None:
    asked = question(options=["black", "green"], multi=True, question="which\ntea?")
    host.replies["questions"] = wire.QuestionList(questions=[asked])
    assert "    which\n    tea?\n    [ ] black\n    [ ] green\n" in run("questions").out


# --- texts ------------------------------------------------------------------


def test_words_of_a_message_need_no_quotes(run: Run, host: HostSurface) -> None:
    host.replies["send"] = wire.Sent(ids=[1])
    run("send", "bob", "hello", "there")
    assert host.asked("send")[0].body == "hello there"


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_without_text_standard_input_is_sent(run: Run, host: HostSurface, arguments: list[str]) -> None:
    host.replies["send"] = wire.Sent(ids=[1])
    run("send", "bob", *arguments, stdin="zwei\nZeilen ü\n".encode())
    assert host.asked("send")[0].body == "zwei\nZeilen ü"


def test_text_that_looks_like_an_option_follows_two_dashes(run: Run, host: HostSurface) -> None:
    host.replies["send"] = wire.Sent(ids=[1])
    run("send", "bob", "--", "--json", "-x")
    assert host.asked("send")[0].body == "--json -x"


def test_nothing_is_not_sent(run: Run, host: HostSurface) -> None:
    ended = run("send", "bob", stdin=b" \n")
    assert ended.code == 2
    assert "no text" in ended.err
    assert host.requests == []


def test_too_much_input_is_refused_before_it_is_sent(run: Run, host: HostSurface) -> None:
    ended = run("send", "bob", stdin=b"x" * (wire.BODY_MAX_BYTES + 2))
    assert ended.code == 1
    assert "/shared" in ended.err
    assert host.requests == []


def test_input_that_is_not_utf8_is_sent_with_replacement_characters(run: Run, host: HostSurface) -> None:
    host.replies["send"] = wire.Sent(ids=[1])
    run("send", "bob", stdin=b"a\xffb")
    assert host.asked("send")[0].body == "a\ufffdb"


# --- approvals --------------------------------------------------------------


def in_steps(*approvals: wire.ApprovalView) -> Callable[[Any], wire.ApprovalList]:
    """What `pending` answers, one after the other; the last one for ever."""
    left = list(approvals)
    return lambda _: wire.ApprovalList(approvals=[approval(99), left.pop(0) if len(left) > 1 else left[0]])


STEPS = (
    approval(),
    approval(status="building", step="creating the container"),
    approval(status="building", step="starting"),
    approval(status="deployed"),
)


def test_approve_waits_until_it_is_deployed_and_tells_the_steps(run: Run, host: HostSurface) -> None:
    host.replies["approve"] = wire.ApprovalAsked(approval=approval(status="approved"))
    host.replies["pending"] = in_steps(*STEPS)
    ended = run("approve", "7")
    assert ended.code == 0
    assert "approval 7 (spawn alice): deployed" in ended.out
    told = ["alice: approved", "alice: creating the container", "alice: starting"]
    assert [line for line in ended.err.splitlines() if line != told[0]] == told[1:]


def test_steps_are_told_also_while_the_daemon_holds_its_answer_back(run: Run, host: HostSurface) -> None:
    host.replies["pending"] = in_steps(*STEPS)
    host.replies["approve"] = [
        until(lambda: len(host.asked("pending")) > 6),
        wire.ApprovalAsked(approval=approval(status="deployed")),
    ]
    ended = run("approve", "7")
    assert (ended.code, "deployed" in ended.out) == (0, True)
    assert ended.err.splitlines() == ["alice: creating the container", "alice: starting"]


def test_without_waiting_it_leaves_as_soon_as_it_has_begun(run: Run, host: HostSurface) -> None:
    host.replies["pending"] = in_steps(approval(), approval(status="building", step="starting"))
    host.replies["approve"] = [forever]
    ended = run("approve", "7", "--no-wait")
    assert (ended.code, ended.out) == (0, "approval 7 (spawn alice): building\n")


def test_an_approval_that_fails_exits_with_1_and_says_why(run: Run, host: HostSurface) -> None:
    host.replies["approve"] = wire.ApprovalAsked(approval=approval(status="approved"))
    host.replies["pending"] = in_steps(approval(), approval(status="failed", outcome="disk full"))
    ended = run("approve", "7", "--json")
    assert ended.code == 1
    assert ended.json["approval"]["status"] == "failed"
    assert "error: approval 7 failed: disk full" in ended.err


def test_what_a_build_prints_is_told_while_it_goes_on(run: Run, host: HostSurface) -> None:
    host.replies["pending"] = in_steps(change(), change(status="building", step="build"))
    host.replies["approve"] = [
        until(lambda: bool(host.asked("build_log"))),
        wire.ApprovalAsked(approval=change(status="failed", outcome="it does not build\nagent.nix:3: oh")),
    ]
    lines = [wire.LogLine(line="\x1b[31mevaluating\x1b[0m"), wire.LogLine(line="agent.nix:3: oh \x1b[2J")]
    host.replies["build_log"] = [*lines, wire.LogLines(lines=[])]
    ended = run("approve", "7", "--commit", COMMIT[:7])
    assert ended.code == 1
    assert host.asked("build_log")[0].follow is True
    assert ended.err.splitlines() == [
        "alice: build",
        "  │ evaluating",
        "  │ agent.nix:3: oh ␛[2J",
        "error: approval 7 failed: it does not build; `hive-c0re build-log 7` has the whole log",
    ]
    assert ended.out == f"approval 7 (change alice to {COMMIT[:10]}): failed; it does not build\n" + (
        "    agent.nix:3: oh\n"
    )


def test_the_end_of_the_log_is_told_of_a_build_that_failed_too_quickly_to_watch(
    run: Run, host: HostSurface
) -> None:
    host.replies["pending"] = in_steps(change())
    host.replies["approve"] = wire.ApprovalAsked(approval=change(status="failed", outcome="no"))
    host.replies["build_log"] = wire.LogLines(lines=[f"line {number}" for number in range(100)])
    ended = run("approve", "7", "--commit", COMMIT)
    assert ended.err.splitlines()[:2] == ["  │ line 80", "  │ line 81"]


def test_a_log_that_cannot_be_followed_does_not_stop_the_watching(run: Run, host: HostSurface) -> None:
    host.replies["pending"] = in_steps(change(), change(status="building"), change(status="deployed"))
    host.replies["approve"] = wire.ApprovalAsked(approval=change(status="approved"))
    assert run("approve", "7", "--commit", COMMIT).code == 0


@pytest.mark.parametrize("given", [COMMIT, COMMIT[:7], COMMIT[:12].upper()])
def test_a_commit_is_named_by_its_sha_or_the_beginning_of_it(run: Run, host: HostSurface, given: str) -> None:
    host.replies["pending"] = in_steps(change())
    host.replies["approve"] = wire.ApprovalAsked(approval=change(status="deployed"))
    host.replies["deny"] = wire.ApprovalAsked(approval=change(status="denied"))
    assert run("approve", "7", "--commit", given, "--yes").code == 0
    assert run("deny", "7", "--commit", given).code == 0
    assert [host.asked(op)[0].commit for op in ("approve", "deny")] == [COMMIT, COMMIT]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "`hive-c0re diff 7`, then name the one you saw with --commit SHA"),
        (["--yes"], 2, "--commit SHA"),
        (["--commit", COMMIT[:6]], 2, "at least its first 7 digits"),
        (["--commit", "main"], 2, "at least its first 7 digits"),
        (["--commit", OLDER], 1, "is for another commit than 9f8e"),
        (["--commit", COMMIT[:7] + "0"], 1, "is for another commit"),
        (["--commit", OLDER + "0"], 2, "must be a commit's sha"),
    ],
)
def test_off_a_terminal_a_commit_has_to_be_named_rightly(
    run: Run, host: HostSurface, arguments: list[str], code: int, said: str
) -> None:
    host.replies["pending"] = in_steps(change())
    ended = run("approve", "7", *arguments)
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (code, "", 1)
    assert said in ended.err
    assert COMMIT not in ended.err  # naming it must take a look at it
    assert host.asked("approve") == []


def test_a_commit_is_not_taken_for_what_has_none(run: Run, host: HostSurface) -> None:
    ended = run("approve", "7", "--commit", COMMIT)
    assert (ended.code, host.asked("approve")) == (1, [])
    assert "leave --commit out" in ended.err


@pytest.mark.parametrize(
    ("status", "said"), [("denied", "is denied already"), ("building", "build-log 7 --follow")]
)
def test_what_is_decided_is_not_decided_again(run: Run, host: HostSurface, status: str, said: str) -> None:
    host.replies["pending"] = in_steps(approval(status=status))
    ended = run("approve", "7")
    assert (ended.code, host.asked("approve"), len(ended.err.splitlines())) == (1, [], 1)
    assert said in ended.err


def test_an_approval_that_is_not_there_is_named(run: Run, host: HostSurface) -> None:
    ended = run("approve", "8")
    assert (ended.code, host.asked("approve")) == (1, [])
    assert "no approval 8; `hive-c0re pending --all`" in ended.err


def test_a_pending_request_says_how_to_decide(run: Run, host: HostSurface) -> None:
    host.replies["request_spawn"] = wire.ApprovalAsked(approval=approval(), existing=True)
    out = run("request-spawn", "alice").out
    assert "asked for before" in out
    assert "hive-c0re approve 7" in out


def test_what_waits_is_told_by_its_subject_or_its_note(run: Run, host: HostSurface) -> None:
    flag = wire.RiskFlag(path="agent.nix", line=3, rule="fetch", text="downloads")
    host.replies["pending"] = wire.ApprovalList(
        approvals=[change(flags=[flag, flag], note="please"), approval(8, note="to help\nme")]
    )
    shown = [line.split() for line in run("pending").out.splitlines()]
    assert shown[0] == ["ID", "AGENT", "WHAT", "COMMIT", "AGE", "FLAGS", "BY", "ABOUT"]
    assert shown[1][:4] == ["7", "alice", "change", COMMIT[:10]]
    assert shown[1][5:] == ["2", "hm1nd", "Add", "fd"]
    assert shown[2][-3:] == ["hm1nd", "to", "help"]


def test_what_was_resolved_is_told_with_its_outcome_and_not_with_the_requesters_words_for_it(
    run: Run, host: HostSurface
) -> None:
    host.replies["pending"] = wire.ApprovalList(
        approvals=[
            change(status="denied", resolved_by="operator", outcome="too much", note="deployed by you"),
            change(8, "building", step="build"),
            change(9, "deployed", rollback=True),
            change(10, "failed", resolved_by="operator", operator_note="\x1b[31mif it\nmust", outcome="no"),
        ]
    )
    out = run("pending", "--all").out
    assert "operator: too much" in out
    assert "by operator: ␛[31mif it: no" in out
    assert "deployed by you" not in out
    assert "building (build)" in out
    assert "rollback" in out
    host.replies["deny"] = wire.ApprovalAsked(
        approval=approval(status="denied", note="she said yes", outcome="no need")
    )
    assert run("deny", "7").out == "approval 7 (spawn alice): denied; no need\n"


def test_rules_of_the_configuration_are_listed_with_where_they_come_from(run: Run, host: HostSurface) -> None:
    host.replies["permissions"] = PERMISSIONS
    lines = [line.split() for line in run("permissions", "list").out.splitlines()]
    assert ["2", "alice", "allow", "everything:", "BYPASS"] in [line[:5] for line in lines]
    assert lines[-4:] == [
        ["-", "alice", "deny", "Bash(␛[2J)", "agent.nix:", "hyperhive.permissions.deny"],
        ["-", "alice", "…", "and", "2", "more", "agent.nix"],
        ["-", "alice", "ask", "everything", "else", "agent.nix:", "hyperhive.permissions.default"],
        ["-", "bob", "?", "not", "known:", "bob.json␛[2J", "is", "no", "regular", "file", "agent.nix"],
    ]
    only = wire.PermissionList(requests=[], rules=[], configured=PERMISSIONS.configured[:1])
    host.replies["permissions"] = only
    assert "hyperhive.permissions.deny" in run("permissions", "list").out
    assert (
        run("permissions", "list", "--json").json["configured"] == only.model_dump(mode="json")["configured"]
    )


# --- diffs ------------------------------------------------------------------


def test_a_diff_tells_everything_about_an_approval_and_then_its_files(run: Run, host: HostSurface) -> None:
    asked = change(
        note="she finds nothing",
        author="hm1nd <hm1nd@hive>",
        authored_at_ms=1,
        commit_ref="main",
        flags=[wire.RiskFlag(path="agent.nix", line=3, rule="fetch", text="downloads while it is built")],
        bases=wire.DiffBases(running=OLDER, approved=COMMIT),
    )
    host.replies["diff"] = [*FILES, summary(asked)]
    ended = run("diff", "7")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == f"approval 7 · change alice to {COMMIT[:10]} · pending"
    for line in (
        f"  commit    {COMMIT} (main)",
        f"  compared  with what runs (running), {OLDER[:10]}; --base also has approved {COMMIT[:10]}",
        "    It finds.",
        "    she finds nothing",
        "    agent.nix:3  fetch: downloads while it is built",
        "  modified  +1 -1  agent.nix",
        "  modified         bin/run  (mode 100644 → 100755)",
        "  2 files changed, +1 -1",
    ):
        assert line in lines
    assert any(line.startswith("  author    hm1nd <hm1nd@hive>, ") for line in lines)
    assert lines[lines.index("── agent.nix · modified +1 -1 ──") + 1 :][:3] == ["@@ -1 +1 @@", "-a", "+b"]


def test_a_diff_asks_for_the_base_that_is_meant(run: Run, host: HostSurface) -> None:
    host.replies["diff"] = [summary(base="approved", base_commit=None, files=0)]
    ended = run("diff", "7", "--base", "approved")
    assert host.asked("diff")[0].base is wire.DiffBase.APPROVED
    assert "with nothing: there was no approved commit" in ended.out
    ended = run("diff", "7", "--base", "main")
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert "'running', 'approved', 'proposed'" in ended.err


def test_a_diff_against_the_commit_itself_says_so(run: Run, host: HostSurface) -> None:
    host.replies["diff"] = [summary(base_commit=COMMIT, files=0)]
    assert "this is the running commit itself" in run("diff", "7").out


def test_the_stat_of_a_diff_leaves_the_lines_out(run: Run, host: HostSurface) -> None:
    host.replies["diff"] = [*FILES, summary()]
    out = run("diff", "7", "--stat").out
    assert ("  2 files changed, +1 -1" in out, "+b" in out) == (True, False)


def test_a_diff_as_json_is_its_summary_and_its_files(run: Run, host: HostSurface) -> None:
    host.replies["diff"] = [*FILES, summary()]
    shown = run("diff", "7", "--json").json
    assert shown["summary"] == summary().model_dump(mode="json")
    assert shown["files"] == [file.model_dump(mode="json") for file in FILES]
    assert [set(file) for file in run("diff", "7", "--json", "--stat").json["files"]] == [
        set(wire.FileDiff.model_fields) - {"text"}
    ] * 2


def test_a_file_that_is_cut_says_where_the_rest_is(run: Run, host: HostSurface) -> None:
    cut = wire.FileDiff(path="big", change="added", added=9, text="+a\n", truncated=True)
    host.replies["diff"] = [cut, summary(files=1)]
    assert "cut here: too long to show; tag proposal/7 of applied/alice has all of it" in run("diff", "7").out


def test_in_a_pipe_a_diff_has_no_colours_and_keeps_its_tabs_and_long_lines(
    run: Run, host: HostSurface
) -> None:
    line = "+\t" + "x" * 500
    host.replies["diff"] = [wire.FileDiff(path="a", change="added", added=1, text=line), summary(files=1)]
    out = run("diff", "7").out
    assert line in out.splitlines()
    assert "\x1b" not in out


def test_an_approval_that_was_never_built_has_no_log_and_says_so(run: Run, host: HostSurface) -> None:
    host.replies["build_log"] = wire.LogLines(lines=[])
    ended = run("build-log", "7")
    assert (ended.code, ended.out) == (0, "")
    assert "nothing of it was built yet" in ended.err


def test_a_spawn_with_a_configuration_is_called_by_its_commit(run: Run, host: HostSurface) -> None:
    asked = change(kind="spawn", agent="bob", revives=True)
    host.replies["diff"] = [*FILES, summary(asked, base_commit=None)]
    assert run("diff", "7").out.startswith(f"approval 7 · revive bob with {COMMIT[:10]} · pending")


# --- going back -------------------------------------------------------------


def test_history_shows_what_runs(run: Run, host: HostSurface) -> None:
    lines = run("history", "alice").out.splitlines()
    assert len(lines) == 4
    assert [("running" in line) for line in lines[1:]] == [True, False, False]
    assert "Begin" in lines[3]


def test_a_rollback_is_to_the_last_other_commit_and_names_it(run: Run, host: HostSurface) -> None:
    host.replies["rollback"] = wire.ApprovalAsked(approval=change(8, "deployed", rollback=True, commit=OLDER))
    ended = run("rollback", "alice")
    assert host.asked("rollback")[0].approval_id == 2
    assert ended.out == f"approval 8 (rollback alice to {OLDER[:10]}): deployed\n"


def test_a_rollback_is_watched_like_any_other_approval(run: Run, host: HostSurface) -> None:
    def looked(_: Any) -> wire.ApprovalList:
        new = [change(8, "building", step="build", rollback=True)] if host.asked("rollback") else []
        return wire.ApprovalList(approvals=[change(7), *new])

    host.replies["pending"] = looked
    host.replies["build_log"] = [wire.LogLine(line="evaluating"), wire.LogLines(lines=[])]
    host.replies["rollback"] = [
        until(lambda: bool(host.asked("build_log"))),
        wire.ApprovalAsked(approval=change(8, "failed", rollback=True, outcome="gone")),
    ]
    ended = run("rollback", "alice", "2")
    assert ended.code == 1
    assert host.asked("build_log")[0].approval_id == 8
    assert ended.err.splitlines()[:2] == ["alice: build", "  │ evaluating"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["4"], "never ran approval 4"), (["5"], f"runs {COMMIT[:10]} already")],
)
def test_a_rollback_to_what_cannot_be_is_refused(
    run: Run, host: HostSurface, arguments: list[str], said: str
) -> None:
    ended = run("rollback", "alice", *arguments)
    assert (ended.code, host.asked("rollback"), len(ended.err.splitlines())) == (1, [], 1)
    assert said in ended.err


def test_rolling_back_twice_goes_on_back_and_not_to_and_fro(run: Run, host: HostSurface) -> None:
    ran = [(9, "b" * 40, True), (8, "c" * 40, False), (5, "b" * 40, False), (2, "a" * 40, False)]
    host.replies["history"] = wire.Deployments(
        deployments=[
            wire.Deployment(approval_id=number, commit=commit, rollback=back, running=number == 9)
            for number, commit, back in ran
        ]
    )
    host.replies["rollback"] = wire.ApprovalAsked(approval=change(10, "deployed", rollback=True))
    assert run("rollback", "alice").code == 0
    assert host.asked("rollback")[0].approval_id == 2
    assert "running rollback" in run("history", "alice").out


def test_there_is_nothing_to_roll_back_to_for_an_agent_that_ran_one_commit(
    run: Run, host: HostSurface
) -> None:
    host.replies["history"] = RAN.model_copy(update={"deployments": RAN.deployments[:2]})
    ended = run("rollback", "alice")
    assert (ended.code, host.asked("rollback")) == (1, [])
    assert "ran nothing else before" in ended.err


def test_a_history_tells_what_the_operator_said_to_a_commit(run: Run, host: HostSurface) -> None:
    first, *others = RAN.deployments
    noted = first.model_copy(update={"operator_note": "\x1b[31muntil it\nis out"})
    host.replies["history"] = wire.Deployments(deployments=[noted, *others])
    lines = run("history", "alice").out.splitlines()
    assert lines[0].endswith("OPERATOR'S NOTE")
    assert [line for line in lines if "␛[31muntil it" in line] == [lines[1]]
    shown = run("history", "alice", "--json").json["deployments"]
    assert [each["operator_note"] for each in shown] == ["\x1b[31muntil it\nis out", "", ""]


# --- progress of agents -----------------------------------------------------


def test_update_all_says_that_there_was_nothing_to_do(run: Run, host: HostSurface) -> None:
    host.replies["update_all"] = wire.AgentList(agents=[])
    assert run("update-all").out == "every agent is up to date\n"


def test_progress_of_update_all_is_what_changes_on_any_agent(run: Run, host: HostSurface) -> None:
    def looked(_: Any) -> wire.AgentList:
        first = len(host.asked("list")) == 1
        return wire.AgentList(agents=[agent("bob"), agent(state="running" if first else "rebuilding")])

    host.replies["list"] = looked
    host.replies["update_all"] = [
        until(lambda: len(host.asked("list")) > 3),
        wire.AgentList(agents=[agent()]),
    ]
    ended = run("update-all")
    assert ended.err.splitlines() == ["alice: rebuilding"]
    assert ended.out == "alice: idle\n"


def test_a_question_tells_how_long_it_stays_open(run: Run, host: HostSurface) -> None:
    host.replies["questions"] = wire.QuestionList(questions=[question(expires_at_ms=10**15)])
    assert re.search(r"asks · .* · closes by itself in \d+d\n", run("questions").out)


def test_progress_of_a_spawn_goes_to_stderr(run: Run, host: HostSurface) -> None:
    def looked(_: Any) -> wire.ApprovalList:
        new = [approval(8, "building", step="build")] if host.asked("spawn") else []
        return wire.ApprovalList(approvals=[approval(7, "failed"), *new])

    host.replies["pending"] = looked
    host.replies["build_log"] = [wire.LogLine(line="evaluating"), wire.LogLines(lines=[])]
    host.replies["spawn"] = [until(lambda: bool(host.asked("build_log"))), DONE]
    ended = run("spawn", "alice")
    assert ended.out == "alice: idle; as you wished\n"
    assert ended.err.splitlines() == ["alice: build", "  │ evaluating"]
    assert host.asked("build_log")[0].approval_id == 8


def test_a_spawn_that_fails_says_why_after_the_end_of_its_log(run: Run, host: HostSurface) -> None:
    failed = approval(8, "failed", outcome="no")
    host.replies["pending"] = lambda _: wire.ApprovalList(approvals=[failed] if host.asked("spawn") else [])
    host.replies["build_log"] = wire.LogLines(lines=["agent.nix:3: oh"])
    host.replies["spawn"] = Conflict("spawn alice: failed: no")
    ended = run("spawn", "alice")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.splitlines() == ["  │ agent.nix:3: oh", "error: spawn alice: failed: no"]


def test_progress_of_a_rebuild_is_the_states_of_its_agent(run: Run, host: HostSurface) -> None:
    def looked(_: Any) -> wire.AgentList:
        first = len(host.asked("list")) == 1
        return wire.AgentList(agents=[agent("bob"), agent(state="rebuilding" if first else "starting")])

    host.replies["list"] = looked
    host.replies["rebuild"] = [until(lambda: len(host.asked("list")) > 3), DONE]
    ended = run("rebuild", "alice")
    assert ended.out == "alice: idle; as you wished\n"
    assert ended.err.splitlines() == ["alice: rebuilding", "alice: starting"]


# --- destroying -------------------------------------------------------------


def test_destroy_asks_first(run: Run, host: HostSurface) -> None:
    host.replies["destroy"] = DONE
    ended = run("destroy", "alice", stdin=b"no\n")
    assert (ended.code, host.asked("destroy")) == (1, [])
    assert "Its state is kept" in ended.err
    assert run("destroy", "alice", stdin=b"yes\n").code == 0
    assert host.asked("destroy")[0].purge is False


def test_a_schedule_tells_its_times_as_the_clocks_of_its_zone_show_them(run: Run, host: HostSurface) -> None:
    host.replies["schedules"] = wire.ScheduleList(schedules=[SCHEDULE])
    out = run("schedules", "list").out
    assert "next: Sun 2030-03-17 18:46 CET, Mon 2030-03-18 18:46 CET" in out
    assert "skipped, 2 times now: alice is not done with message 17" in out
    purged = {"paused": wire.SchedulePause.PURGED, "next_runs_ms": [], "timezone": "Mars/Olympus"}
    host.replies["schedules"] = wire.ScheduleList(schedules=[SCHEDULE.model_copy(update=purged)], more=1)
    ended = run("schedules", "list")
    assert "paused: its agent was purged" in ended.out
    assert "and 1 more" in ended.err


@pytest.mark.parametrize(
    ("named", "link", "zone"),
    [
        ("Asia/Tokyo", "", "Asia/Tokyo"),
        (":Asia/Tokyo", "", "Asia/Tokyo"),
        ("", "/usr/share/zoneinfo/Europe/Berlin", "Europe/Berlin"),
        ("CET-1CEST", "/nix/store/x-tzdata/share/zoneinfo/America/Indiana/Knox", "America/Indiana/Knox"),
        ("", "", "UTC"),
    ],
)
def test_without_a_time_zone_that_of_this_machine_holds(
    run: Run, host: HostSurface, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    named: str, link: str, zone: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("TZ", named)
    monkeypatch.setattr("hive_core.cli_schedules.LOCAL_TIME", tmp_path / "localtime")
    if link:
        (tmp_path / "localtime").symlink_to(link)
    host.replies["add_schedule"] = SCHEDULE
    run("schedules", "add", "0 9 * * *", "alice", "x")
    assert host.asked("add_schedule")[0].timezone == zone


@pytest.mark.parametrize("typed", [b"", b"yes\n", b"alic\n"])
def test_a_purge_is_refused_unless_the_name_is_typed_even_with_yes(
    run: Run, host: HostSurface, typed: bytes
) -> None:
    ended = run("destroy", "alice", "--purge", "--yes", stdin=typed)
    assert (ended.code, host.asked("destroy")) == (1, [])
    assert "nothing was removed" in ended.err


@pytest.mark.parametrize(
    "arguments", [["destroy", "alice"], ["destroy", "alice", "--purge"], ["purge", "alice"]]
)
def test_a_name_given_to_confirm_has_to_be_the_one(run: Run, host: HostSurface, arguments: list[str]) -> None:
    host.replies["destroy"] = wire.AgentDone(agent=None)
    ended = run(*arguments, "--confirm", "alic", stdin=b"alice\n")
    assert (ended.code, host.asked("destroy")) == (1, [])
    assert run(*arguments, "--confirm", "alice").code == 0


def test_a_purge_goes_ahead_when_the_name_is_typed(run: Run, host: HostSurface) -> None:
    host.replies["destroy"] = wire.AgentDone(agent=None)
    ended = run("destroy", "alice", "--purge", stdin=b"alice\n")
    assert host.asked("destroy")[0].purge is True
    assert (ended.code, ended.out) == (0, "alice: removed for good\n")


def test_revive_spawns_a_tombstone(run: Run, host: HostSurface) -> None:
    host.replies["list"] = wire.AgentList(agents=[agent(state=wire.AgentState.TOMBSTONE)])
    host.replies["spawn"] = DONE
    assert run("revive", "alice").code == 0
    assert host.asked("spawn")[0].name == "alice"


def test_revive_refuses_what_has_no_tombstone_and_names_those_there_are(run: Run, host: HostSurface) -> None:
    host.replies["list"] = wire.AgentList(
        agents=[agent("bob", state=wire.AgentState.TOMBSTONE), agent("alice")]
    )
    ended = run("revive", "alice")
    assert (ended.code, host.asked("spawn")) == (1, [])
    assert "kept are bob" in ended.err


# --- following --------------------------------------------------------------


def test_followed_messages_are_json_lines(run: Run, host: HostSurface) -> None:
    sent = [message(1, "one\ntwo"), message(2, "three")]
    host.replies["messages"] = [*sent, wire.MessageList(messages=[])]
    ended = run("messages", "--follow", "--json")
    assert [json.loads(line) for line in ended.out.splitlines()] == [
        one.model_dump(mode="json") for one in sent
    ]
    assert host.asked("messages")[0].follow is True


def test_followed_logs_are_lines(run: Run, host: HostSurface) -> None:
    host.replies["logs"] = [wire.LogLine(line="one"), wire.LogLine(line="two"), wire.LogLines(lines=[])]
    assert run("logs", "alice", "-f").out == "one\ntwo\n"


# --- errors and exit codes --------------------------------------------------


def test_a_refusal_is_one_line_on_stderr_and_exit_code_1(run: Run, host: HostSurface) -> None:
    host.replies["send"] = UnknownRecipient("nobody is called bob;\n there is alice")
    ended = run("send", "bob", "hello")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "error: nobody is called bob; there is alice\n"


@pytest.mark.parametrize("refusal", [UnknownAgent("no bob"), Conflict("it stopped already")])
def test_every_refused_operation_exits_with_1(run: Run, host: HostSurface, refusal: Exception) -> None:
    host.replies["kill"] = refusal
    assert run("kill", "bob").code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["lst"],
        ["send"],
        ["approve", "seven"],
        ["approve", "0"],
        ["logs", "alice", "--lines", "0"],
        ["inbox", "--limit", "501"],
        ["list", "--no-such-option"],
        ["deny", "7", "--note", "x" * 5000],
        ["approve", "7", "--note", "x" * 5000],
        ["--config", "/does/not/exist", "status"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(run: Run, host: HostSurface, arguments: list[str]) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: ")
    assert len(ended.err.splitlines()) == 1
    assert host.requests == []


def test_without_a_daemon_it_says_how_to_start_one_and_exits_with_3(run: Run, tmp_path: Path) -> None:
    ended = run("list")
    assert (ended.code, ended.out) == (3, "")
    assert f"hive-c0re serve --root {tmp_path}" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_stale_socket_is_not_reachable_either(run: Run, host: HostSurface, tmp_path: Path) -> None:
    stale = tmp_path / "stale.sock"
    listen(stale, mode=0o600).close()
    ended = run("--socket", str(stale), "list")
    assert ended.code == 3
    assert "refused" in ended.err


def test_a_daemon_that_goes_away_while_it_is_followed_is_not_reachable(run: Run, tmp_path: Path) -> None:
    surface = HostSurface(tmp_path / "run" / "host.sock")

    surface.replies["logs"] = [wire.LogLine(line="one"), surface.leave, forever]
    with surface.running():
        ended = run("logs", "alice", "--follow")
    assert (ended.code, ended.out) == (3, "one\n")


def test_a_socket_that_may_not_be_used_says_who_may(
    run: Run, host: HostSurface, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may connect to anything, so this stands in for a socket of somebody else.
    monkeypatch.setattr("hive_shared.client.Client.connect", denied)
    monkeypatch.setattr("os.access", lambda *_: False)
    ended = run("list")
    assert ended.code == 3
    assert "permission denied; become root or join the group" in ended.err


async def denied(client: Client) -> None:
    raise NotReachable(f"nothing answers on {client.path}: Permission denied")


def test_an_answer_that_makes_no_sense_is_not_taken_for_wrong_usage(run: Run, host: HostSurface) -> None:
    host.replies["list"] = wire.Sent(ids=[1])
    ended = run("list")
    assert ended.code == 1
    assert "another version" in ended.err


def test_a_mistake_of_ours_is_one_line_too(
    run: Run, host: HostSurface, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HIVE_DEBUG", raising=False)
    monkeypatch.setattr("hive_core.cli_output.agents", lambda _: 1 / 0)
    ended = run("list")
    assert ended.code == 1
    assert "should not happen: ZeroDivisionError" in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("command", [[], ["send"], ["serve"]])
def test_help_documents_the_exit_codes_and_the_shared_options(run: Run, command: list[str]) -> None:
    ended = run(*command, "--help")
    assert ended.code == 0
    words = " ".join(ended.out.replace("│", " ").split())
    assert "0 done, 1 refused or failed, 2 wrong usage, 3 the daemon is not reachable" in words
    for option in ("--json", "--root", "--socket", "--config"):
        assert option in words


# --- budgets ------------------------------------------------------------------


def test_budgets_tell_what_is_used_of_what_and_whose_limit_it_is(run: Run, host: HostSurface) -> None:
    host.replies["budgets"] = BUDGETS
    told = " ".join(run("budgets").out.split())
    assert "alice 200 of 200 1,234,567 of 5,000,000 (default) $0.00 stopped; goes on in 0s" in told
    assert "(default) no limit 5,000,000 no limit" in told


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--turns", "many"], "--turns"),
        (["--tokens", "1.5"], "whole number"),
        (["--dollars", "nan"], "--dollars"),
        (["--dollars", "-1"], "--dollars"),
        (["--again", "--wait"], "one of"),
        (["--again", "--turns", "3"], "either limits"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused_before_anybody_is_asked(
    run: Run, host: HostSurface, arguments: list[str], word: str
) -> None:
    ended = run("budget", "alice", *arguments)
    assert (ended.code, word in ended.err) == (2, True)
    assert not host.asked("set_budget")


def test_the_budget_of_an_agent_that_is_not_here_is_told_of(run: Run, host: HostSurface) -> None:
    host.replies["budgets"] = BUDGETS
    ended = run("budget", "bob")
    assert ended.code != 0
    assert "bob is not here" in ended.err
