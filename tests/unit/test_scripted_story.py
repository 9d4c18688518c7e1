"""The story that the scripted API plays: it must end, whoever talks to whom."""

import pytest

from tests.support.scripted_api import SEND, Reply, Request, ToolUse, story


def woken(sender: str, body: str) -> Reply:
    author = {"operator": "the operator"}.get(sender, f"the agent {sender}")
    prompt = (
        f"[hyperhive] message 7 from {author}\n--- {sender} writes · 0a1b ---\n{body}\n--- end · 0a1b ---"
    )
    return story(_request([{"type": "text", "text": prompt}]))


def _request(content: list[dict[str, object]]) -> Request:
    return Request({"messages": [{"role": "user", "content": content}], "tools": [{"name": SEND}]}, {})


def sends(reply: Reply) -> list[tuple[str, str]]:
    return [(str(b.input["to"]), str(b.input["body"])) for b in reply.blocks if isinstance(b, ToolUse)]


@pytest.mark.parametrize(
    ("body", "question"),
    [
        ("please ask bob what 6 times 7 is", "what 6 times 7 is"),
        ("Could you talk to bob?", "?"),
        ("talk to bob", "how are you?"),
    ],
)
def test_the_operators_wish_becomes_a_question_to_the_peer_and_a_word_to_the_operator(
    body: str, question: str
) -> None:
    assert sends(woken("operator", body)) == [
        ("bob", f"Question: {question}"),
        ("operator", "I have asked bob."),
    ]


def test_a_question_is_answered_to_who_asked() -> None:
    assert sends(woken("alice", "Question: what 6 times 7 is")) == [("alice", "Answer: 42")]


def test_an_answer_goes_to_the_operator_and_to_no_agent() -> None:
    assert sends(woken("bob", "Answer: 42")) == [("operator", "bob answered: 42")]


def test_after_its_tool_calls_an_agent_stops() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": "sent"}
    assert sends(story(_request([result]))) == []
