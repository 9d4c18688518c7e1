"""Whether Claude Code has credentials, and `claude auth login` driven over pipes.

Facts, tried with Claude Code 2.1.197: `claude auth login` prints `… visit: https://claude.com/cai/oauth/…`
and `Paste code here if prompted > ` on its standard output, and reads the code from its standard input. A
code that is not whole (`CODE#STATE`) gets `Invalid code. …` on standard error, and it waits for another;
one that is refused gets `Login failed: …` and exit code 1. With exit code 0 the credentials are in
`.credentials.json` of `CLAUDE_CONFIG_DIR`. It also tries to open a browser, through `BROWSER` if set.
"""

import asyncio
import contextlib
import json
import re
import time
from typing import Any, cast

from hive_agent.backends import claude_command
from hive_agent.backends.base import BackendConfig, LoginStage
from hive_agent.backends.claude_process import guarded
from hive_shared.errors import BadRequest, Conflict
from hive_shared.redact import Redactor

CREDENTIALS_FILE = ".credentials.json"
CREDENTIALS_MAX_BYTES = 256 * 1024
CODE_MAX_CHARACTERS = 4096
OUTPUT_MAX_BYTES = 64 * 1024
URL_SECONDS = 30.0  # for the URL to appear
VERIFY_SECONDS = 60.0  # for an answer about a code
LOGIN_SECONDS = 900.0  # a login that nobody finishes is ended

_URL = re.compile(rb"https://[^\s\"'<>\x00-\x1f]+")
_PROMPT = re.compile(rb"Paste code", re.IGNORECASE)


class ClaudeLogin:
    """The login of one agent: never shared, since refresh tokens rotate."""

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self._stage = LoginStage.NONE
        self._url: str | None = None
        self._message = ""
        self._changed = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._conversation: asyncio.Task[None] | None = None

    # --- are there credentials? ---

    def needed(self) -> bool:
        return not (
            claude_command.has_credentials_in(self._config.environment)
            or claude_command.api_key(self._config.paths.claude)
            or self._has_credentials_file()
        )

    def _has_credentials_file(self) -> bool:
        path = self._config.paths.claude / CREDENTIALS_FILE
        data = claude_command.read_small_file(path, CREDENTIALS_MAX_BYTES)
        if data is None:
            return False
        try:
            credentials = json.loads(data)["claudeAiOauth"]
            if not credentials["accessToken"]:
                return False
            # An expired access token is renewed by the CLI itself, as long as there is a refresh token.
            return bool(credentials.get("refreshToken")) or credentials["expiresAt"] > time.time() * 1000
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False

    def state(self) -> dict[str, Any]:
        return {
            "needed": self.needed(),
            "stage": self._stage.value,
            "url": self._url,
            "message": self._message,
        }

    # --- the conversation ---

    async def start(self) -> None:
        """Start `claude auth login`; returns when its URL is known, or it has failed."""
        await self.cancel()
        self._show(LoginStage.STARTING, "asking Claude Code for a login URL")
        try:
            self._process = await self._start_process()
        except OSError as error:
            self._show(LoginStage.FAILED, f"cannot start Claude Code: {error.strerror}")
            return
        self._conversation = asyncio.create_task(self._converse(self._process), name="claude auth login")
        await self._left(LoginStage.STARTING, URL_SECONDS, "Claude Code printed no login URL")

    async def code(self, text: str) -> None:
        """Hand in what the page showed; returns when it is accepted or refused.

        Raises `Conflict` when no code is awaited, `BadRequest` for what cannot be one.
        """
        code = text.strip()
        if (
            not 0 < len(code) <= CODE_MAX_CHARACTERS
            or not code.isascii()
            or not code.isprintable()
            or " " in code
        ):
            raise BadRequest(
                "that is not a login code; paste the whole code that the page shows", field="code"
            )
        if self._stage is not LoginStage.AWAITING_CODE or self._process is None:
            raise Conflict("no login code is awaited; start the login first")
        self._show(LoginStage.VERIFYING, "checking the code", url=self._url)
        stdin = cast(asyncio.StreamWriter, self._process.stdin)
        with contextlib.suppress(ConnectionError):  # it has ended: the conversation says how
            stdin.write(code.encode() + b"\n")
            await stdin.drain()
        await self._left(LoginStage.VERIFYING, VERIFY_SECONDS, "Claude Code did not answer about the code")

    async def cancel(self) -> None:
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            conversation.cancel()
            await asyncio.gather(conversation, return_exceptions=True)
        if self._stage is not LoginStage.DONE:
            self._show(LoginStage.NONE, "")

    async def _left(self, stage: LoginStage, seconds: float, otherwise: str) -> None:
        """Wait for `stage` to be over; fail the login if it never is."""
        try:
            async with asyncio.timeout(seconds):
                while self._stage is stage:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            await self.cancel()
            self._show(LoginStage.FAILED, f"{otherwise} within {seconds:g} seconds")

    def _show(self, stage: LoginStage, message: str, *, url: str | None = None) -> None:
        self._stage, self._message, self._url = stage, message, url
        self._changed.set()

    async def _start_process(self) -> asyncio.subprocess.Process:
        config = self._config
        environment = claude_command.environment(config)
        for name in claude_command.CREDENTIAL_VARIABLES:
            environment.pop(name, None)
        config.paths.state.mkdir(parents=True, exist_ok=True)
        return await asyncio.create_subprocess_exec(
            *guarded([str(config.claude or "claude"), "auth", "login"]),
            env=environment | {"BROWSER": "true"},  # the program: there is no browser here to open
            cwd=config.paths.state,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def _converse(self, process: asyncio.subprocess.Process) -> None:
        """Read what it says until it ends; what came of it."""
        errors = bytearray()
        try:
            async with asyncio.timeout(LOGIN_SECONDS):
                await asyncio.gather(
                    self._read_output(cast(asyncio.StreamReader, process.stdout)),
                    self._read_errors(cast(asyncio.StreamReader, process.stderr), errors),
                )
                code = await process.wait()
        except TimeoutError:
            self._show(LoginStage.FAILED, f"nobody finished the login within {LOGIN_SECONDS:g} seconds")
            return
        finally:
            await _end(process)
        if code == 0 and self._has_credentials_file():
            self._show(LoginStage.DONE, "logged in")
        else:
            self._show(LoginStage.FAILED, _last_line(errors) or f"claude auth login ended with code {code}")

    async def _read_output(self, output: asyncio.StreamReader) -> None:
        """The URL is whole once the prompt for the code follows it."""
        seen = bytearray()
        while chunk := await output.read(4096):
            seen += chunk[: OUTPUT_MAX_BYTES - len(seen)]
            url = _URL.search(seen)
            if self._stage is LoginStage.STARTING and url and _PROMPT.search(seen, url.end()):
                message = "open the URL, log in, and paste the code that it shows"
                self._show(LoginStage.AWAITING_CODE, message, url=url.group().decode("ascii", "replace"))

    async def _read_errors(self, stream: asyncio.StreamReader, errors: bytearray) -> None:
        while chunk := await stream.read(4096):
            errors += chunk
            del errors[:-OUTPUT_MAX_BYTES]
            if self._stage is LoginStage.VERIFYING and b"Invalid code" in chunk:
                self._show(LoginStage.AWAITING_CODE, _last_line(errors), url=self._url)


def _last_line(errors: bytearray) -> str:
    lines = Redactor().clean(bytes(errors)).decode("utf-8", "replace").split("\n")
    return next((line.strip()[:400] for line in reversed(lines) if line.strip()), "")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()  # its guard then ends everything
        await process.wait()
