"""Code that all sections of the schema share: strict validation, patterns, and sections with optional key groups."""

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

SHA256 = r"^[0-9a-f]{64}$"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
HUB_ID = r"^[\w.-]+(/[\w.-]+)?$"
OWNED_HUB_ID = r"^[\w.-]+/[\w.-]+$"
INTERVAL = r"^[1-9]\d* (updates|minutes)$"
TAG_SHAPE = r"^(B[^A-Za-z0-9\s]+TYPE|TYPE[^A-Za-z0-9\s]+B)$"
ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f]*$"
DELIMITER = r"^[^\"\r\n\x00]$"
LAUNCHER = r"^([^;&|<>`$\r\n]|\$[A-Za-z_{])+$"
# Pattern -> its description after "expected" in a message.
PATTERNS = {
    SHA256: "a sha256, 64 of 0-9 and a-f",
    NAME: "a name of letters, digits and . _ - alone",
    HUB_ID: "OWNER/NAME, or NAME",
    OWNED_HUB_ID: "OWNER/NAME",
    INTERVAL: "such as '500 updates' or '10 minutes'",
    ONE_LINE: "text of one line, without control characters",
    LAUNCHER: "one command without ; & | < > ` and $(",
    DELIMITER: "one character, no quote and no line end",
    TAG_SHAPE: "such as B-TYPE, TYPE-B or B_TYPE",
}

Sha256 = Annotated[str, Field(pattern=SHA256)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=NAME)]
Title = Annotated[
    str,
    Field(
        min_length=1, max_length=200, pattern=ONE_LINE, description="display name, for the report and the model card"
    ),
]
ModelTitle = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=ONE_LINE,
        description="display name, for the report and the model card; the Hub id if it has one",
    ),
]
License = Annotated[
    str | None,
    Field(
        max_length=200,
        pattern=ONE_LINE,
        description="SPDX id or name of the license; null: the license that the source states, if any",
    ),
]
Language = Annotated[
    str | None, Field(description="BCP 47 code, for the model card; null: unknown, or several languages")
]
Limit = Annotated[
    int | None,
    Field(ge=1, description="maximum number of examples per split, taken at equal distances; null: all examples"),
]


class Settings(BaseModel):
    """Base class of every section: no coercion, no unknown keys, no defaults, immutable after loading."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


def one_message(message: str) -> WrapValidator:
    """Return a validator that reports one message instead of pydantic's, which has one for each member of a union."""

    def validated(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError:
            raise ValueError(f"{message}; got {value!r}") from None

    return WrapValidator(validated)


def either(plain: Any, larger: Any) -> Any:
    """Return the type of a section that has either all the keys that `larger` adds to `plain`, or none of them."""
    added = larger.model_fields.keys() - plain.model_fields.keys()

    def form(value: Any) -> str:
        has_more = not added.isdisjoint(value) if isinstance(value, dict) else isinstance(value, larger)
        return "larger" if has_more else "plain"

    return Annotated[Annotated[plain, Tag("plain")] | Annotated[larger, Tag("larger")], Discriminator(form)]
