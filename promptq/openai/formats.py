"""What form a text is asked for in: OpenAI's names for a JSON schema. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from promptq.contract.request import ANY_OBJECT, Schema
from promptq.openai.body import Body, WithoutEffect

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class PlainText(Body):
    """Any text."""

    type: Literal["text"]

    @property
    def asks_for(self) -> dict[str, Any] | None:
        """The schema that the text is to fit."""
        return None


class JsonObject(Body):
    """Any JSON object."""

    type: Literal["json_object"]

    @property
    def asks_for(self) -> dict[str, Any]:
        """The schema that the text is to fit."""
        return ANY_OBJECT


class _Named(Body):
    """A schema under a name. It is followed to the letter, whatever `strict` says."""

    name: _Name
    description: WithoutEffect = None
    strict: WithoutEffect = None
    schema_: Schema = Field(alias="schema")


class JsonSchema(Body):
    """JSON that fits a schema, as `/v1/chat/completions` has it."""

    type: Literal["json_schema"]
    json_schema: _Named

    @property
    def asks_for(self) -> dict[str, Any]:
        """The schema that the text is to fit."""
        return self.json_schema.schema_


class FlatJsonSchema(_Named):
    """JSON that fits a schema, as `/v1/responses` has it."""

    type: Literal["json_schema"]

    @property
    def asks_for(self) -> dict[str, Any]:
        """The schema that the text is to fit."""
        return self.schema_


ChatFormat = Annotated[PlainText | JsonObject | JsonSchema, Field(discriminator="type")]
ResponseFormat = Annotated[PlainText | JsonObject | FlatJsonSchema, Field(discriminator="type")]
