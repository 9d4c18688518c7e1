"""The small words of the command line: how times, sizes, commits and approvals are called."""

import time

from hive_core.terminal_text import clean_line
from hive_shared import wire

SHORT_SHA = 10  # characters: enough to recognise a commit by, and to name it to `--commit`


def moment(at_ms: int) -> str:
    """Local time; the date only when it is not today's. A commit may claim a time that no clock has."""
    try:
        at, now = time.localtime(at_ms / 1000), time.localtime()
    except (OverflowError, ValueError, OSError):
        return "an impossible time"
    return time.strftime("%H:%M:%S" if at[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", at)


def age(since_ms: int, now_ms: int | None = None) -> str:
    """How long ago, in its largest unit: `42s`, `5m`, `3h`, `2d`; empty for a time that is not known."""
    return _span(_now(now_ms) - since_ms) if since_ms > 0 else ""


def until(at_ms: int, now_ms: int | None = None) -> str:
    """How long still, as `age`; `0s` for what is over."""
    return _span(at_ms - _now(now_ms))


def _now(now_ms: int | None) -> int:
    return time.time_ns() // 1_000_000 if now_ms is None else now_ms


def _span(length_ms: int) -> str:
    seconds = max(0, length_ms) // 1000
    for length, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def size(number_bytes: int) -> str:
    """`512 B`, `3.4 MiB`."""
    amount = float(number_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def tokens(amount: int) -> str:
    """`850`, `9.0k`, `142k`, `1.2M`."""
    if amount < 1000:
        return str(amount)
    if amount < 1_000_000:
        return f"{amount / 1000:.{1 if amount < 100_000 else 0}f}k"
    return f"{amount / 1_000_000:.1f}M"


def context(report: wire.HarnessReport) -> str:
    """How large a conversation is, and what the model can take: `ctx 142k / 200k`; empty if unknown."""
    if report.context_tokens <= 0:
        return ""
    most = f" / {tokens(report.window_tokens)}" if report.window_tokens > 0 else ""
    return f"ctx {tokens(report.context_tokens)}{most}"


def ago(at_ms: int) -> str:
    """`5m ago (12:30:05)`; the time alone when it is not in the past."""
    past = age(at_ms) if at_ms <= _now(None) else ""
    return f"{past} ago ({moment(at_ms)})" if past else moment(at_ms)


def what(approval: wire.ApprovalView) -> str:
    """What is asked for, in a few words: `change alice to 1a2b3c4d5e`, `spawn bob with 9f8e7d6c5b`."""
    word = "with" if approval.kind is wire.ApprovalKind.SPAWN else "to"
    commit = f" {word} {short(approval.commit)}" if approval.commit else ""
    return clean_line(f"{kind(approval)} {approval.agent}{commit}")


def kind(approval: wire.ApprovalView) -> str:
    """`spawn`, `revive`, `change` or `rollback`."""
    if approval.kind is wire.ApprovalKind.SPAWN:
        return "revive" if approval.revives else "spawn"
    return "rollback" if approval.rollback else "change"


def short(commit: str | None) -> str:
    """The beginning of a sha."""
    return clean_line(commit[:SHORT_SHA]) if commit else ""


def subject(message: str) -> str:
    """The first line of a commit's message."""
    return message.strip().split("\n")[0].strip()


def about(approval: wire.ApprovalView) -> str:
    """What it is about, in a line: the commit's subject, or what the requester said."""
    return subject(approval.message) or subject(approval.note)
