"""Permission to use tools, at the terminal: what waits, the answer to it, and the rules (`permissions …`)."""

import json
from typing import Annotated

import typer

from hive_core import cli_output
from hive_core.cli_command import Hive, UsageProblem, command
from hive_core.cli_words import age, ago, until
from hive_core.terminal_text import clean, clean_line
from hive_shared import wire

permissions = typer.Typer(
    name="permissions",
    help="Tool calls that wait for your word, and the rules about them.",
    no_args_is_help=True,
)

Number = Annotated[
    int, typer.Argument(metavar="ID", min=1, help="The request, as `permissions list` shows it.")
]
AgentName = Annotated[str, typer.Argument(metavar="AGENT", help="Whose rule it is.")]
RuleText = Annotated[
    str, typer.Argument(metavar="RULE", help="Such as 'Bash(git *)', Edit, or * for every tool.")
]


def listed(hive: Hive) -> None:
    """Show the tool calls that wait for you, whole, and the rules: yours, and those of agents' agent.nix."""
    hive.show(wire.Permissions(), _listed)


def allow(
    hive: Hive,
    number: Number,
    session: Annotated[bool, typer.Option("--session", help="Until the agent's conversation ends.")] = False,
    always: Annotated[bool, typer.Option("--always", help="From now on: writes a rule.")] = False,
    rule: Annotated[str, typer.Option("--rule", help="With --session or --always: this wider rule.")] = "",
) -> None:
    """Let an agent do what it asks for: once, unless you say for longer."""
    if session and always:
        raise UsageProblem("give either --session or --always")
    if rule and not (session or always):
        raise UsageProblem("--rule goes with --session or --always")
    scope = wire.PermissionScope.ONCE
    if session or always:
        scope = wire.PermissionScope.ALWAYS if always else wire.PermissionScope.SESSION
    hive.show(wire.AnswerPermission(permission_id=number, scope=scope, rule=rule), _answered)


def deny(
    hive: Hive,
    number: Number,
    message: Annotated[str, typer.Argument(metavar="[MESSAGE]", help="What the model reads.")] = "",
) -> None:
    """Refuse what an agent asks for; it goes on without, and reads your message."""
    hive.show(wire.AnswerPermission(permission_id=number, message=message), _answered)


def rule(
    hive: Hive,
    agent: AgentName,
    text: RuleText,
    denied: Annotated[bool, typer.Option("--deny", help="Deny it, whatever else allows it.")] = False,
) -> None:
    """Allow (or deny) an agent something from now on. `permissions bypass` allows everything."""
    if text == "*" and not denied:
        raise UsageProblem("that would be bypass: say `permissions bypass AGENT`")
    decision = "deny" if denied else "allow"
    hive.show(
        wire.AddPermissionRule.model_validate({"name": agent, "decision": decision, "rule": text}), _made
    )


def bypass(hive: Hive, agent: AgentName) -> None:
    """Let an agent use every tool that it has without asking; what is denied stays denied.

    `permissions remove` takes it back.
    """
    hive.show(wire.AddPermissionRule(name=agent, decision="allow", rule="*"), _made)


def remove(
    hive: Hive,
    number: Annotated[int, typer.Argument(metavar="RULE-ID", min=1, help="As `permissions list` shows it.")],
) -> None:
    """Take a rule back."""
    hive.show(wire.RemovePermissionRule(rule_id=number), _removed)


for _name, _function in (
    ("list", listed),
    ("allow", allow),
    ("deny", deny),
    ("rule", rule),
    ("bypass", bypass),
    ("remove", remove),
):
    command(permissions, _name, "Commands")(_function)


def _listed(result: wire.PermissionList) -> None:
    if not result.requests:
        cli_output.tell("no tool call waits for you")
    for request in result.requests:
        cli_output.put(_told(request))
    if result.more:
        cli_output.tell(f"and {result.more} more")
    rows = [_row(made) for made in result.rules]
    rows += [row for configured in result.configured for row in _configured(configured)]
    if rows:
        cli_output.put_table(("RULE", "AGENT", "", "WHAT", "MADE"), rows, empty="")


def _told(request: wire.PermissionView) -> str:
    when = "" if request.expires_at_ms is None else f" · denied in {until(request.expires_at_ms)}"
    head = f"#{request.id} {clean_line(request.agent)} · {clean_line(request.tool)}"
    lines = [f"{head} · since {age(request.asked_at_ms) or '0s'}{when}"]
    lines += [f"    {line}" for line in _arguments(request)]
    lines.append(f"    in {clean_line(request.cwd)}")
    if request.reason:
        lines.append(f"    it says: {clean_line(request.reason)}")
    if request.rule:
        lines.append(f"    always would write: {clean_line(request.rule)}")
    return "\n".join(lines)


def _arguments(request: wire.PermissionView) -> list[str]:
    """Each argument, without what could move the cursor."""
    try:
        value = json.loads(request.input)
    except (ValueError, RecursionError):
        return clean(request.input).splitlines()
    if not isinstance(value, dict):
        return clean(request.input).splitlines()
    lines = []
    for name, one in value.items():
        text = one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)
        first, *rest = clean(text).splitlines() or [""]
        lines += [f"{clean_line(name)}: {first}", *(f"  {line}" for line in rest)]
    return (
        [*lines, "… (cut: it is longer, or hides what looks like a secret)"] if request.truncated else lines
    )


def _row(made: wire.PermissionRuleView) -> tuple[object, ...]:
    until_when = " (session)" if made.session else ""
    bypassed = made.rule == "*" and made.decision == "allow"
    what = "everything: BYPASS" if bypassed else clean_line(made.rule)
    return made.id, clean_line(made.agent), made.decision, what + until_when, ago(made.made_at_ms)


def _configured(configured: wire.ConfiguredRules) -> list[tuple[object, ...]]:
    """Rules that no `permissions remove` takes back: a commit does. The last line is for all other calls."""
    agent = clean_line(configured.agent)
    if configured.problem:
        return [("-", agent, "?", f"not known: {clean_line(configured.problem)}", "agent.nix")]
    rows: list[tuple[object, ...]] = [
        ("-", agent, each.decision, clean_line(each.rule), f"agent.nix: {clean_line(each.option)}")
        for each in configured.rules
    ]
    if configured.more:
        rows.append(("-", agent, "…", f"and {configured.more} more", "agent.nix"))
    by = "hyperhive.permissions.default" if configured.is_policy else "without a policy"
    return [*rows, ("-", agent, configured.default, "everything else", f"agent.nix: {by}")]


def _answered(request: wire.PermissionView) -> None:
    scope = f" ({request.scope})" if request.scope else ""
    cli_output.put(f"permission {request.id}: {request.closed}{scope}")


def _made(made: wire.PermissionRuleView) -> None:
    cli_output.put(f"rule {made.id}: {clean_line(made.agent)}: {made.decision} {clean_line(made.rule)}")


def _removed(made: wire.PermissionRuleView) -> None:
    cli_output.put(
        f"rule {made.id} of {clean_line(made.agent)} is gone: {made.decision} {clean_line(made.rule)}"
    )
