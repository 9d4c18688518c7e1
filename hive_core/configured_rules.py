"""What an agent's approved configuration says of its tools, told as rules.

They are the configuration's alone: a rule of the operator's stands beside them, and denied beats allowed
whoever denied (`hive_shared.permissions`, SPEC section 8). The harness decides by the same options.
"""

from collections.abc import Iterator

from hive_core.containers.local_system import LocalSystem
from hive_shared.agent_options import builtin_tools
from hive_shared.errors import HiveError
from hive_shared.wire import ConfiguredRule, ConfiguredRules

ALLOW, DENY = "hyperhive.permissions.allow", "hyperhive.permissions.deny"
TOOLS, BASH = "hyperhive.allowedTools", "hyperhive.bashAllow"


def configured_rules(agent: str, system: LocalSystem) -> ConfiguredRules:
    """The rules of what `agent` was built to."""
    policy = system.permissions
    try:
        rules = list(_rules(system))
    except HiveError as error:
        return ConfiguredRules(agent=agent, problem=error.message)
    if policy is None:
        return ConfiguredRules(agent=agent, rules=rules)
    return ConfiguredRules(
        agent=agent,
        rules=rules,
        is_policy=True,
        default=policy.default,
        ask_timeout_seconds=policy.ask_timeout_seconds,
    )


def _rules(system: LocalSystem) -> Iterator[ConfiguredRule]:
    policy, allowed, bash = system.permissions, system.allowed_tools, system.bash_allow
    if policy is not None:
        yield from (ConfiguredRule(decision="deny", rule=rule, option=DENY) for rule in policy.deny)
        yield from (ConfiguredRule(decision="allow", rule=rule, option=ALLOW) for rule in policy.allow)
    if allowed is None and bash is None:
        return
    servers = (rule for rule in allowed or () if rule.startswith("mcp__"))
    for rule in (*builtin_tools(allowed, bash), *servers):
        is_narrowed = bash is not None and rule.startswith("Bash(")
        yield ConfiguredRule(
            decision="allow", rule=rule, option=BASH if is_narrowed or allowed is None else TOOLS
        )
