"""Hands one notification to a courier process, and never waits long for it."""

import json
import os
import sys
from dataclasses import dataclass
from typing import Final, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from hive_core.containers.command import CommandFailed, Limits, TookTooLong, capture
from hive_core.notify.targets import Target
from hive_core.notify.words import Notification

COURIER: Final = (sys.executable, "-P", "-m", "hive_core.notify.courier")
DELIVERY_SECONDS: Final = 40.0
ANSWER_MAX_BYTES: Final = 4096
LIMITS: Final = Limits(memory_bytes=768 * 2**20, cpu_seconds=20, file_bytes=2**20)
PASSED_ON: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
                    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "PYTHONPATH")  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """Whether it was delivered, and why not; the note holds no secret."""

    ok: bool
    note: str = ""


class Deliver(Protocol):
    """Takes one notification to one target. Answers in any case, within its own time."""

    async def __call__(self, target: Target, notification: Notification) -> Outcome: ...


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True)

    ok: bool
    note: str


async def by_courier(
    target: Target, notification: Notification, timeout_seconds: float = DELIVERY_SECONDS
) -> Outcome:
    """Deliver by Apprise in a process with limits, which is killed when it takes too long."""
    order = {"url": target.url, "title": notification.title, "body": notification.body}
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    try:
        done = await capture(
            COURIER,
            timeout_seconds=timeout_seconds,
            output_max_bytes=ANSWER_MAX_BYTES,
            limits=LIMITS,
            given=json.dumps(order).encode(),
            environment=environment,
        )
    except TookTooLong:
        return Outcome(ok=False, note=f"not delivered within {timeout_seconds:g} seconds")
    except CommandFailed as error:
        return Outcome(ok=False, note=error.message)
    try:
        answer = _Answer.model_validate_json(done.output)
    except ValidationError:
        # What it printed instead may name the address.
        return Outcome(ok=False, note=f"the courier ended with exit code {done.exit_code}")
    return Outcome(ok=answer.ok, note=answer.note[:200])
