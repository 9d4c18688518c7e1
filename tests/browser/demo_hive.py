# ruff: noqa: E501 — invented sentences read best on one line
"""The stand-in hive on a busy day, to look at: `python -m tests.browser.demo_hive [port]`, then log in with
the address it prints. Also what the front end's tests use where they need much and varied data."""

import hashlib
import sys
from typing import Any

from tests.browser.mock_hive import (
    CODE,
    Harness,
    MockHive,
    agent_view,
    approval,
    deed,
    deployment,
    file_diff,
    harness_state,
    hive_status,
    message,
    note,
    now_ms,
    permission,
    question,
    reminder,
    schedule,
)

MINUTE_MS = 60_000

LOG = """\x1b[2m07:41:02\x1b[0m \x1b[32mINFO\x1b[0m  harness up, backend claude, model sonnet
\x1b[2m07:41:02\x1b[0m \x1b[32mINFO\x1b[0m  page on /run/hive/page.sock
\x1b[2m07:41:09\x1b[0m \x1b[33mWARN\x1b[0m  api asked to wait 3 s
\x1b[2m07:41:12\x1b[0m \x1b[32mINFO\x1b[0m  turn 41 ok in 12.3 s"""

TEST_RUN = "\n".join(
    ["============================= test session starts ============================="]
    + [f"tests/unit/test_parser.py::test_case_{n} \x1b[32mPASSED\x1b[0m" for n in range(60)]
    + [
        "\x1b[1m\x1b[31mFAILED tests/unit/test_parser.py::test_empty_line - IndexError\x1b[0m",
        "1 failed, 60 passed",
    ]
)


SHA = [hashlib.sha1(bytes([n]), usedforsecurity=False).hexdigest() for n in range(16)]

AGENT_NIX = """@@ -1,9 +1,14 @@ { pkgs, ... }:
 { pkgs, ... }:
 {
-  environment.systemPackages = [ pkgs.git pkgs.jq ];
+  environment.systemPackages = [ pkgs.git pkgs.jq pkgs.ripgrep ];
+
+  hyperhive.extraMcpServers.forge = {
+    command = "${pkgs.forge-mcp}/bin/forge-mcp";
+    args = [ "--read-only" ];
+  };
+
   hyperhive.model = "opus";
-  environment.variables.TZ = "UTC";
+  environment.variables = { TZ = "Europe/Berlin"; EDITOR = "true"; };
 }
@@ -30,4 +35,5 @@
   programs.git.enable = true;
+  systemd.services.watch.serviceConfig.BindPaths = [ "/srv/releases" ];
   # keep this last
\\ No newline at end of file"""

BUILD = [
    "\x1b[2m09:12:40\x1b[0m exporting 9f2c1e7ab04d",
    "\x1b[2m09:12:40\x1b[0m agent.nix: 41 settings",
    *(f"building '/nix/store/{n:02}k3…-python3.12-part-{n}.drv'" for n in range(1, 22)),
    "\x1b[32mwriting the system file\x1b[0m",
]

FLAGS = [
    {"path": "agent.nix", "line": 7, "rule": "mcp-server", "text": "Starts another MCP server, which the agent can use without asking."},
    {"path": "agent.nix", "line": 36, "rule": "bind-mount", "text": "Binds /srv/releases of the host into the container."},
    {"path": "modules/tools/python.nix", "line": 3, "rule": "fetch", "text": "builtins.fetchTarball without a hash: what it gets may be another thing tomorrow."},
]  # fmt: skip

COMMIT_MESSAGE = """agent: ripgrep, the forge's MCP server, and the releases directory

alice reads issues for her notes. The server is read-only; its source was
read by carol. /srv/releases is where the tarballs are."""


PUBLISH = "git push forge main"  # what an agent waits to be allowed


def proposal(hive: MockHive) -> None:
    """A change that waits, with everything that a card can show."""
    more = {"flags": FLAGS, "bases": {"running": SHA[3], "approved": SHA[3], "proposed": SHA[7]}}
    hive.approvals.insert(0, approval(
        13, "alice", kind="apply_commit", commit=SHA[9], commit_ref="main", message=COMMIT_MESSAGE,
        author="hm1nd <hm1nd@hive.invalid>", authored_at_ms=now_ms() - 9 * MINUTE_MS, requested_at_ms=now_ms() - 4 * MINUTE_MS,
        note="alice asked for it; I checked the package's origin and that nothing is opened to the network.", **more,
    ))  # fmt: skip
    big = "@@ -0,0 +1,400 @@\n" + "\n".join(f"+  setting{n} = {n};" for n in range(400))
    hive.diffs[13, "running"] = [
        file_diff("agent.nix", AGENT_NIX),
        file_diff("modules/tools/python.nix", "@@ -0,0 +1,3 @@\n+{ pkgs, ... }:\n+# the interpreter that the tests want\n+let x = builtins.fetchTarball \"https://example.org/x.tar.gz\"; in { }", "added"),
        file_diff("modules/generated.nix", big, "added", truncated=True),
        file_diff("scripts/old.sh", "@@ -1,2 +0,0 @@\n-#!/bin/sh\n-exec true", "deleted"),
        file_diff("scripts/run.sh", "", "modified", mode="100644 → 100755"),
    ]  # fmt: skip
    hive.diffs[13, "approved"] = hive.diffs[13, "running"]
    hive.diffs[13, "proposed"] = hive.diffs[13, "running"][:1]


def busy_hive() -> MockHive:
    hive = MockHive()
    ago = now_ms() - 42 * MINUTE_MS
    hive.hive = hive_status(agents=6, running=4)
    report = {"since_ms": now_ms() - 73_000, "backend": "claude", "model": "sonnet"}
    for view in (
        agent_view("hm1nd", since_ms=ago, report=report | {"badge": "waiting_for_you", "note": f"Bash: {PUBLISH}", "context_tokens": 142_300, "window_tokens": 200_000}, unread=2),
        agent_view("alice", since_ms=ago, commit=SHA[3], report=report | {"badge": "idle", "model": "opus", "context_tokens": 171_000, "window_tokens": 200_000}),
        agent_view("bob", port=8431, since_ms=ago, needs_update=True, report=report | {"badge": "needs_login"}),
        agent_view("carol", port=8712, since_ms=ago, unread=3, report=report | {"badge": "rate_limited", "note": "5-hour limit"}),
        agent_view("dave", port=8333, state="rebuilding"),
        agent_view("erin", port=8555, state="crashed", restarts=4, note="exited with 137 (out of memory); next try in 30 s"),
        agent_view("frank", port=8201, state="stopped", isolation="none", since_ms=ago),
    ):  # fmt: skip
        hive.agents[view["name"]] = view
        hive.harnesses[view["name"]] = Harness(view["name"])
    hive.tombstones = [
        agent_view("old-tom", state="tombstone", since_ms=ago - 4 * 86400_000, state_bytes=48_300_000, has_credentials=True),
        agent_view("mallory", state="tombstone", since_ms=ago - 86400_000, state_bytes=12_400),
    ]  # fmt: skip
    hive.questions = [
        question(3, "hm1nd", "Which release should alice's notes cover?", ["0.1.0 only", "0.1.0 and the betas", "everything since the fork"]),
        question(4, "carol", "May I delete /shared/scratch? It holds 2.1 GiB of build output that nobody read for a week.", ["yes", "no", "keep the logs"], multi=True, expires_at_ms=now_ms() + 47 * MINUTE_MS),
    ]  # fmt: skip
    hive.asks = [
        question(5, "alice", "Is the parser's flaky test known to you?", ["yes", "no"], answerer="carol", message_id=3, expires_at_ms=now_ms() + 20 * MINUTE_MS),
    ]  # fmt: skip
    hive.permissions = [
        permission(6, "Bash", {"command": PUBLISH}, agent="hm1nd", cwd="/agents/alice/config", reason="alice's notes are reviewed; the forge builds the release page from main", rule=f"Bash({PUBLISH})", asked_at_ms=now_ms() - 73_000),
    ]  # fmt: skip
    hive.approvals = [
        approval(12, "grace", note="A reviewer for alice's patches; small and short-lived."),
        approval(11, "dave", "building", kind="apply_commit", commit=SHA[8], step="build", note="adds ripgrep and jq", operator_note="Until the release is out; take jq out again then.", message="agent: ripgrep and jq", author="hm1nd <hm1nd@hive.invalid>"),
        approval(10, "carol", "deployed", resolved_by="operator (session ab12)", resolved_at_ms=ago),
        approval(9, "eve", "denied", resolved_by="operator (session ab12)", resolved_at_ms=ago - MINUTE_MS, note="A second reviewer.", outcome="one reviewer is enough"),
        approval(8, "frank", "failed", kind="apply_commit", commit=SHA[6], message="agent: more memory", resolved_by="operator (session ab12)", resolved_at_ms=ago - 2 * MINUTE_MS, outcome="the build failed: agent.nix:12: memoryMax takes a size such as \"2G\", not a list"),
    ]  # fmt: skip
    proposal(hive)
    hive.build_logs = {
        11: list(BUILD),
        8: [*BUILD[:6], "\x1b[31merror:\x1b[0m agent.nix:12: memoryMax takes a size"],
    }
    hive.notes["alice"] = [
        note(
            "notes.md",
            "# What I am working on\n\nRelease notes of 0.1.0, for the operator (message 31).\n- done: the list of changes, from the tags\n- next: ask bob for the screenshots\n\nDecided: one page, no table. The betas are left out (question 3).",
        ),
        note("notes/release-0.1.0.md", "v0.1.0 · 214 commits since v0.1.0-beta.3"),
        note("notes/how to build.md", "nix build .#notes"),
    ]
    hive.deployments["alice"] = [
        deployment(5, SHA[3], "agent: opus, and git", running=True, approved_by="operator (session ab12)", deployed_at_ms=ago),
        deployment(4, SHA[2], "agent: a reviewer's tools", approved_by="operator (session ab12)", deployed_at_ms=ago - 26 * 3600_000),
        deployment(2, SHA[1], "first configuration", approved_by="operator", deployed_at_ms=ago - 50 * 3600_000),
    ]  # fmt: skip
    hive.schedules = [
        schedule(1, agent="hm1nd", body="Write me a summary of yesterday: what was done, and what waits for me.", last_at_ms=ago, last_outcome="sent", last_message_id=17),
        schedule(2, body="Look whether the build is green.", last_at_ms=ago, last_outcome="skipped", last_message_id=18, missed=3),
        schedule(3, agent="mallory", paused="purged", next_runs_ms=[]),
    ]  # fmt: skip
    hive.reminders = [reminder(4, "ask bob again"), reminder(5, "read the <b>log</b> of the night")]
    hive.messages = _messages()
    hive.activity = _activity()
    hive.logs = {name: LOG.splitlines() for name in hive.agents}
    _working_day(hive.harnesses["alice"])
    hive.harnesses["hm1nd"].state = harness_state("hm1nd", badge="waiting_for_you")
    hive.harnesses["bob"].state = harness_state(
        "bob",
        badge="needs_login",
        login={
            "needed": True,
            "stage": "awaiting_code",
            "url": "https://claude.example/oauth/authorize?code=true&client_id=9d1c&state=Zk3",
            "message": "",
        },
    )
    for name in ("dave", "erin", "frank"):
        hive.harnesses[name].down = True
    return hive


def _messages() -> list[dict[str, Any]]:
    start = now_ms() - 30 * MINUTE_MS
    lines: list[tuple[str, str, str, dict[str, Any]]] = [
        ("operator", "hm1nd", "Good morning. Please get the 0.1.0 release notes written and reviewed.", {}),
        ("hm1nd", "alice", "Write release notes for 0.1.0 into /shared/notes-0.1.0.md. Ask carol for the list of merged changes.", {}),
        ("alice", "carol", "Could you list what was merged since the fork? One line each is fine.", {"asks": 2}),
        ("carol", "alice", "\n".join(f"- {n:03} {text}" for n, text in enumerate(["broker: leases and acks", "web: one-time login", "harness: warm process", "docs: protocol"] * 5)), {"in_reply_to": 3, "answers": 2}),
        ("system", "hm1nd", '{"event":"spawned","agent":"carol","ok":true,"note":""}', {}),
        ("hm1nd", "*", "Standup in five minutes: write one line each to me.", {"broadcast": True}),
        ("alice", "operator", "Draft is in /shared/notes-0.1.0.md (1,240 words). Shall I cut the section on benchmarks?", {}),
        ("bob", "operator", "I cannot log in: my credentials expired. Please open my page and paste a fresh code.", {}),
        ("carol", "hm1nd", "Standup: merged list delivered, waiting for my rate limit to pass.", {"in_reply_to": 6}),
    ]  # fmt: skip
    return [
        message(n, sender, to, body, sent_at_ms=start + n * 3 * MINUTE_MS, **more)
        for n, (sender, to, body, more) in enumerate(lines, 1)
    ]


def _activity() -> list[dict[str, Any]]:
    here, other, terminal = (
        "operator (session 0a1b2c3d)",
        "operator (session ab12cd34)",
        "operator (host socket)",
    )
    lines: list[tuple[str, str, str, dict[str, Any]]] = [
        (here, "login", "127.0.0.1", {}),
        (terminal, "approve", "approval 10", {}),
        ("system (deployer)", "deployed", "approval 10", {}),
        (other, "deny", "approval 9", {"detail": "one reviewer is enough"}),
        (other, "approve", "approval 8", {}),
        ("system (deployer)", "failed", "approval 8", {"outcome": "failed", "detail": "agent.nix:12: memoryMax takes a size"}),
        ("system (watch)", "crash", "erin", {"outcome": "crashed", "detail": "exited with 137 (out of memory)"}),
        (here, "kill", "frank", {}),
        ("hm1nd (socket)", "restart", "carol", {}),
        (here, "destroy", "hm1nd", {"outcome": "refused: conflict", "detail": "hm1nd cannot be destroyed: a hive has a manager"}),
        (here, "send", "hm1nd", {}),
    ]  # fmt: skip
    start = now_ms() - 50 * MINUTE_MS
    return [deed(n, *line[:3], at_ms=start + n * 4 * MINUTE_MS, **line[3]) for n, line in enumerate(lines, 1)]


def assistant(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"type": "assistant", "message": {"role": "assistant", "content": list(blocks)}}


def tool(id: str, name: str, /, **fields: Any) -> dict[str, Any]:
    return assistant({"type": "tool_use", "id": id, "name": name, "input": fields})


def result(id: str, content: Any, /, **more: Any) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": id, "content": content} | more
    return {"type": "user", "message": {"role": "user", "content": [block]}}


def say(text: str) -> dict[str, Any]:
    return assistant({"type": "text", "text": text})


def think(text: str) -> dict[str, Any]:
    return assistant({"type": "thinking", "thinking": text})


def turn_of_alice() -> list[dict[str, Any]]:
    """The stream of one turn that uses every tool there is a rendering for."""
    return [
        {"type": "system", "subtype": "init", "session_id": "s", "tools": [], "mcp_servers": []},
        think("The manager wants release notes. First look at what is there, then ask carol for the merged changes."),
        tool("t1", "Bash", command="git log --oneline v0.0.9..HEAD | wc -l", description="count the commits"),
        result("t1", "47"),
        tool("t2", "Read", file_path="/state/notes.md", offset=1, limit=40),
        result("t2", "\n".join(f"{n:>4}\tnote {n}: the parser keeps empty lines" for n in range(1, 41))),
        tool("t3", "TodoWrite", todos=[
            {"content": "List merged changes", "status": "completed"},
            {"content": "Write the draft", "status": "in_progress"},
            {"content": "Have it reviewed", "status": "pending"},
        ]),
        result("t3", "Todos have been modified successfully."),
        tool("t4", "Grep", pattern="def parse_.*line", path="/shared/src", glob="*.py"),
        result("t4", "src/parser.py:41:def parse_empty_line(text):"),
        tool("t5", "Glob", pattern="**/*.md"),
        result("t5", "No files found"),
        tool("t6", "Edit", file_path="/shared/src/parser.py", old_string="def parse(text):\n    lines = text.split()\n    return lines[0]", new_string="def parse(text):\n    lines = text.splitlines()\n    return lines[0] if lines else ''"),
        result("t6", "The file /shared/src/parser.py has been updated."),
        tool("t7", "Bash", command="pytest -q tests/unit"),
        result("t7", TEST_RUN, is_error=True),
        tool("t8", "Write", file_path="/shared/notes-0.1.0.md", content="# 0.1.0\n\n" + "A line of notes.\n" * 30),
        result("t8", "File created successfully at: /shared/notes-0.1.0.md"),
        tool("t9", "mcp__hyperhive__send", to="bob", body="Please look at /shared/notes-0.1.0.md before noon."),
        result("t9", [{"type": "text", "text": "sent, message 214"}]),
        tool("t10", "mcp__hyperhive__ask_operator", question="Cut the section on benchmarks?", options=["yes", "no"]),
        result("t10", [{"type": "text", "text": "question 7 waits on the dashboard"}]),
        tool("t11", "mcp__hyperhive__remind", body="ask bob again", after_seconds=3600),
        result("t11", ""),
        tool("t12", "mcp__forge__open_issue", title="parser drops empty lines", labels=["bug"]),
        result("t12", [{"type": "text", "text": "issue 31"}]),
        tool("t13", "mcp__hyperhive__send", to="operator", body="The draft is in /shared/notes-0.1.0.md. One test of the parser failed on empty input; I fixed it and told bob."),
        result("t13", [{"type": "text", "text": "sent, message 215"}]),
        say("The notes are drafted and bob is asked for a review.\n\nOpen points:\n  1. whether to keep the benchmarks\n  2. one flaky test in the parser"),
        {"type": "result", "subtype": "success", "is_error": False, "result": "…"},
    ]  # fmt: skip


STATS = {
    "duration_ms": 41_200, "input_tokens": 1_900, "output_tokens": 2_350, "cache_read_tokens": 212_000,
    "cache_creation_tokens": 8_800, "context_tokens": 31_400, "cost_usd": 0.1834, "model": "opus",
}  # fmt: skip


def _working_day(alice: Harness) -> None:
    alice.add("turn_start", {"from": "operator", "body": "Are you there?", "unread": 0, "message_id": 1})
    alice.add("stream", say("Yes. My notes are read and I am ready."))
    alice.add("turn_end", {"ok": True, "outcome": "ok", "note": "", "stats": STATS | {"duration_ms": 1_400}})
    body = "Write release notes for 0.1.0 into /shared/notes-0.1.0.md.\nAsk carol for the list of merged changes."
    alice.add(
        "turn_start", {"from": "hm1nd", "body": body, "unread": 2, "message_id": 2, "redelivered": True}
    )
    for line in turn_of_alice():
        alice.add("stream", line)
    alice.add("turn_end", {"ok": True, "outcome": "ok", "note": "", "stats": STATS})
    alice.add("turn_start", {"from": "bob", "body": "Looks good. Two typos in line 12.", "unread": 0})
    alice.add("stream", tool("t20", "Bash", command="sed -n 12p /shared/notes-0.1.0.md"))
    alice.add("note", {"text": "the operator cancelled the turn"})
    alice.add("turn_end", {"ok": False, "outcome": "failed", "note": "the backend stopped answering"})
    turn = {"from": "bob", "started_at_ms": now_ms()}
    alice.state = harness_state(
        "alice", model="opus", badge="thinking", turn=turn, context_tokens=31_400, last_turn=STATS, unread=1
    )


if __name__ == "__main__":
    address = busy_hive().start(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(f"{address}/login#{CODE}", flush=True)
    input("Enter stops it. ")
