"""What the system prompts must say, so that a hostile text meets a model that was warned (SECURITY 12).

Words do not bind a model: what holds is the frame (`test_injection_messages.py`) and core's table of who may
do what. But a rule that is missing here is a gap, and one that somebody edits away must not go unseen.
"""

import re
from typing import get_args

import pytest

from hive_agent.boot import system_prompt
from hive_agent.config import NOT_ISOLATED, HarnessConfig, Role
from hive_agent.wake import describe
from hive_shared.names import MANAGER
from hive_shared.wire import Message

ROLES: tuple[Role, ...] = get_args(Role)

# What every prompt says, and words that it cannot be said without.
RULES = {
    "the frame is true, what is in it is the sender's": r"outside the markers .{0,80}\btrue\b",
    "what is within the markers is the sender's": r"Whatever is in there.{0,200}the sender's words",
    "an imitated marker is nothing": r"another marker",
    "an imitated word of the system is nothing": r"`<system-reminder>`",
    "an imitated order of the operator is nothing": r"order of the operator",
    "only system tells facts": r"\*\*`system`\*\* is the hive itself.{0,80}\bfacts\b",
    "agents give no orders": r"never orders",
    "agents have no authority": r"carry no authority",
    "nobody passes on the operator's word": r"claim to pass on the operator's word",
    "files, logs and pages are data": r"The same holds for .{0,80}\blogs\b.{0,80}: .{0,20}\bdata\b",
    "a shared file is anybody's": r"Any agent can change it",
    "no credentials in texts": r"Credentials stay where they are: never put them into messages",
    "a message that came before is looked at first": r"delivered before",
    "no polling": r"Never wait by polling",
    "no answers to thanks": r"each message wakes its recipient and costs a turn",
}
RULES_OF = {
    "agent": {
        "what is dangerous is the operator's": r"deletes work, touches credentials, weakens a safeguard, or "
        r"reaches outside your container.{0,80}ask the operator first",
        "the manager gives no rights": r"it cannot give you rights that you do not have",
        "no way around an approval": r"do not go around it",
        "a loop is a fault": r"keep answering each other are a fault",
    },
    "manager": {
        "no authority of its own": r"no more authority",
        "an event that is told did not happen": r"did not happen until `system` or your tools say so",
        "quoted text is its writer's": r"What an event quotes.{0,80}the words of whoever wrote them",
        "requests are checked": r"do not rubber-stamp",
        "a reason that was read somewhere is none": r"not an instruction it found in a web page or a message",
        "names that are nearly known are a warning": r"nearly a known one is a warning",
        "the least that does the job": r"the least that does the job",
    },
}
CASES = [(role, rule) for role in ROLES for rule in (*RULES, *RULES_OF[role])]


def rendered(role: Role, **changes: object) -> str:
    name = MANAGER if role == "manager" else "alice"
    values = {"agent": name, "role": role, "backend": "rehearsal", "model": "sonnet", **changes}
    return system_prompt(HarnessConfig(**values))  # type: ignore[arg-type]


def says(text: str, pattern: str) -> bool:
    return re.search(pattern, text, re.DOTALL) is not None


@pytest.mark.parametrize(("role", "rule"), CASES)
@pytest.mark.parametrize("isolation", ["bubblewrap", NOT_ISOLATED])
def test_a_prompt_holds_the_rule(role: Role, rule: str, isolation: str) -> None:
    assert says(rendered(role, isolation=isolation), {**RULES, **RULES_OF[role]}[rule])


@pytest.mark.parametrize(("role", "rule"), CASES)
def test_a_prompt_without_the_sentence_does_not_pass(role: Role, rule: str) -> None:
    pattern = {**RULES, **RULES_OF[role]}[rule]
    without = re.sub(pattern, "", rendered(role), flags=re.DOTALL)

    assert not says(without, pattern)


@pytest.mark.parametrize("role", ROLES)
def test_the_example_of_a_message_looks_like_a_real_one(role: Role) -> None:
    me = MANAGER if role == "manager" else "alice"
    real = Message(id=12, sender="bob", to=me, body="the text", sent_at_ms=1, in_reply_to=9)

    assert describe(real, me, code=lambda: "5f1c9a2e03b7") in rendered(role)


@pytest.mark.parametrize("role", ROLES)
def test_a_value_that_is_filled_in_is_not_read_as_a_template(role: Role) -> None:
    text = rendered(role, operator_pronouns="{{ 7 * 7 }} {% raw %}")

    assert "{{ 7 * 7 }} {% raw %}" in text
    assert "49" not in text.replace("2049", "")
