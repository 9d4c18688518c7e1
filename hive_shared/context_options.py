"""What `agent.nix` may say about long conversations (`hyperhive.context`, docs/operating.md)."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

TOKENS_MIN: Final = 10_000  # of a watermark: the prompt of an empty conversation is about as large
TOKENS_MAX: Final = 10_000_000
SHARE_MIN: Final = 0.1
SHARE_MAX: Final = 0.95
CACHE_SECONDS_MIN: Final = 60
CACHE_SECONDS_MAX: Final = 86_400
WANTED: Final = "a share of the context from 0.1 to 0.95, tokens (10000 or more), or 0 for never"


def is_watermark(value: Any) -> bool:
    """Whether `value` is a share of the model's context, a number of tokens, or 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    is_tokens = TOKENS_MIN <= value <= TOKENS_MAX and value == int(value)
    return value == 0 or SHARE_MIN <= value <= SHARE_MAX or is_tokens


class ContextOptions(BaseModel):
    """When a conversation is made shorter. A watermark of 0 is never."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    compact_at: float = 0.75
    reset_at: float = 0.0
    cache_seconds: Annotated[int, Field(ge=CACHE_SECONDS_MIN, le=CACHE_SECONDS_MAX)] = 300

    @field_validator("compact_at", "reset_at", mode="before")
    @classmethod
    def _is_watermark(cls, value: Any) -> Any:
        if not is_watermark(value):
            raise ValueError(f"must be {WANTED}")
        return value

    def compact_tokens(self, window_tokens: int) -> int:
        """How large a conversation is compacted; 0 is never, also while the window is not known."""
        return _tokens(self.compact_at, window_tokens)

    def reset_tokens(self, window_tokens: int) -> int:
        """How large a conversation is begun anew once it is cold; 0 is never."""
        return _tokens(self.reset_at, window_tokens)


def _tokens(watermark: float, window_tokens: int) -> int:
    return int(watermark * window_tokens) if watermark <= 1 else int(watermark)
