"""The names of what can think in an agent's turns (SPEC section 9, docs/backends.md)."""

from typing import Final, Literal, get_args

BackendName = Literal["claude", "codex", "openai", "rehearsal"]
BACKENDS: Final[tuple[BackendName, ...]] = get_args(BackendName)
