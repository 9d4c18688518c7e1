"""Not the Claude Code CLI: a stand-in for what the real one does not do on demand, or not offline.

`fake_claude.py BEHAVIOUR …the CLI's arguments`. Standard library only.
"""

import json
import os
import sys
import time
from typing import Any

SESSION_ID = "11111111-2222-4333-8444-555555555555"
LOGIN_URL = "https://claude.com/cai/oauth/authorize?code=true&state=abc"


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)


def hear() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    value: dict[str, Any] = json.loads(line)
    return value


def answer(request: dict[str, Any]) -> None:
    response = {"subtype": "success", "request_id": request["request_id"], "response": {}}
    say({"type": "control_response", "response": response})


def hear_prompt() -> str:
    """The next user message; control requests on the way are acknowledged."""
    while (heard := hear())["type"] != "user":
        answer(heard)
    text: str = heard["message"]["content"][0]["text"]
    return text


def end_turn(text: str) -> None:
    say({"type": "result", "subtype": "success", "is_error": False, "result": text, "total_cost_usd": 0.0})


def begin() -> None:
    say({"type": "system", "subtype": "init", "session_id": SESSION_ID})


def cold_turn() -> None:
    prompt = sys.stdin.read()
    begin()
    end_turn(f"cold: {prompt}")


def noisy() -> None:
    """Everything that a line can be, and then a good end."""
    while True:
        hear_prompt()
        begin()
        say({"type": "something_new", "with": {"unknown": ["fields"]}})
        say({"type": "assistant", "message": None})
        say({"type": "assistant", "message": {"content": "not a list", "usage": [1]}})
        say({"type": ["not", "text"]})
        say([1, 2, 3])
        sys.stdout.write('{"type": "user", "message": {"content": [{"type": "tool_re\n')
        sys.stdout.write("Segmentation fault, or so\n\n\x00\x01\n")
        sys.stdout.flush()
        os.write(1, b'\xff\xfe{"no": "utf-8"}\n' + b"[" * 200_000 + b"\n")
        for _ in range(50):
            sys.stdout.write("x" * 1_000_000)
        sys.stdout.write("\n")
        end_turn("fine")


def endless_result() -> None:
    hear_prompt()
    end_turn("y" * 3_000_000)
    hear()


def silent() -> None:
    """A later version that speaks another protocol: it never answers `initialize`."""
    say({"type": "hello", "protocol": 9})
    time.sleep(3600)


def dying() -> None:
    hear_prompt()
    begin()
    print(
        "fatal: key sk-ant-api03-abcdefghijklmn and the-secret-of-alice are no good",
        file=sys.stderr,
        flush=True,
    )
    os._exit(7)


STREAM: list[dict[str, Any]] = [
    {"type": "system", "subtype": "init", "session_id": SESSION_ID},
    {"type": "assistant", "message": {"content": [{"type": "thinking", "thinking": "Let me see."}]}},
    {"type": "assistant", "message": {"content": [{"type": "text", "text": "I look."}]}},
    {
        "type": "assistant",
        "message": {
            "content": [{"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}}]
        },
    },
    {
        "type": "user",
        "message": {"content": [{"type": "tool_result", "tool_use_id": "t1", "content": "a file"}]},
    },
    {"type": "assistant", "message": {"content": [{"type": "text", "text": "Done."}]}},
    {"type": "result", "subtype": "success", "is_error": False, "result": "Done.", "total_cost_usd": 0.0},
]


def dies_after(lines: int, *, half: bool) -> None:
    """Prints so many lines of a turn, perhaps the half of the next one, and is gone."""
    hear_prompt()
    for line in STREAM[:lines]:
        say(line)
    if half:
        text = json.dumps(STREAM[lines])
        sys.stdout.write(text[: len(text) // 2])
        sys.stdout.flush()
    os.kill(os.getpid(), 9)


def asking() -> None:
    """Asks for permission, and goes on only when it is answered."""
    hear_prompt()
    begin()
    request = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {}}
    say({"type": "control_request", "request_id": "q1", "request": request})
    permission = hear()["response"]["response"]["behavior"]
    say({"type": "control_request", "request_id": "q2", "request": {"subtype": "hook_callback"}})
    end_turn(f"{permission}, {hear()['response']['subtype']}")
    hear()


def stubborn() -> None:
    """Ignores interrupts and the end of its input, and has a child in a session of its own."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(3600)
    hear_prompt()
    begin()
    time.sleep(3600)


def chatty() -> None:
    """Goes on talking between turns."""
    while True:
        prompt = hear_prompt()
        begin()
        end_turn(prompt)
        for number in range(2000):
            say({"type": "result", "subtype": "success", "is_error": False, "result": f"unasked {number}"})


def login() -> None:
    """`claude auth login`, as the real one prints it; the code `good#state` is accepted."""
    print(f"Opening browser to sign in…\nIf the browser didn't open, visit: {LOGIN_URL}", flush=True)
    sys.stdout.write("Paste code here if prompted > ")
    sys.stdout.flush()
    while "#" not in (code := sys.stdin.readline().strip()):
        print("Invalid code. Please make sure the full code was copied.", file=sys.stderr, flush=True)
    if code != "good#state":
        print("Login failed: Request failed with status code 400", file=sys.stderr, flush=True)
        sys.exit(1)
    credentials = {"accessToken": "sk-ant-oat01-token", "refreshToken": "sk-ant-ort01-token", "expiresAt": 1}
    with open(os.path.join(os.environ["CLAUDE_CONFIG_DIR"], ".credentials.json"), "w") as file:
        json.dump({"claudeAiOauth": credentials}, file)
    print("Login successful.", flush=True)


def main() -> None:
    behaviour, arguments = sys.argv[1], sys.argv[2:]
    if arguments[:2] == ["auth", "login"]:
        login()
    elif "--input-format" in arguments:
        name, _, number = behaviour.partition("-")
        if number:
            dies_after(int(number), half=name == "half")
        else:
            globals()[behaviour]()
    else:
        cold_turn()


if __name__ == "__main__":
    main()
