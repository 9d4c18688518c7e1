"""The fields of every change, typed: a bad one is named in the refusal (SPEC section 11)."""

from typing import Annotated, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from starlette.requests import Request

from hive_shared.errors import BadRequest
from hive_shared.wire import TEXT_MAX_CHARACTERS, MessageId, bad_field

FIELDS_MAX = 16

Text = Annotated[str, Field(min_length=1, max_length=TEXT_MAX_CHARACTERS)]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Note = Annotated[str, Field(max_length=TEXT_MAX_CHARACTERS)]


class Form(BaseModel):
    """What a page posts. An empty optional field counts as not given."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class LoginForm(Form):
    code: Annotated[str, Field(min_length=1, max_length=200)]


class ApproveForm(Form):
    """`commit` is the sha that was on screen (SECURITY 7)."""

    note: Note = ""
    commit: Annotated[str, Field(max_length=64)] | None = None


class DenyForm(Form):
    note: Note = ""
    commit: Annotated[str, Field(max_length=64)] | None = None


class RollbackForm(Form):
    """Whose commit to go back to; without, the one before."""

    approval_id: MessageId | None = None

    @field_validator("approval_id", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None


class PurgeForm(Form):
    """`confirm` repeats the agent's name: a purge cannot be undone."""

    confirm: Name


class AnswerForm(Form):
    answer: Text


class RequestSpawnForm(Form):
    name: Name
    note: Note = ""


class SendForm(Form):
    to: Name
    body: Annotated[str, Field(min_length=1)]
    in_reply_to: MessageId | None = None

    @field_validator("in_reply_to", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None


class AgentSendForm(Form):
    body: Annotated[str, Field(min_length=1)]


class ModelForm(Form):
    model: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]


class LoginCodeForm(Form):
    """The code a person copied from the backend's login page."""

    code: Annotated[str, Field(min_length=1, max_length=4096)]


F = TypeVar("F", bound=Form)


async def form(request: Request, kind: type[F]) -> F:
    """The posted fields; raises `BadRequest` naming the first bad one."""
    return parse_form(await request.body(), kind)


def parse_form(body: bytes, kind: type[F]) -> F:
    """As `form`, of a body that is at hand."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError:
        raise BadRequest(f"the form is not form-encoded, or has more than {FIELDS_MAX} fields") from None
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name in fields:
            raise BadRequest(f"field {name[:64]}: given more than once", field=name[:64])
        fields[name] = value
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise bad_field(error) from None
