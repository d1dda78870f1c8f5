"""What all bodies in OpenAI's form have in common. Pure."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

WithoutEffect = Annotated[Any, Field(None, description="Accepted without effect.")]


class Body(BaseModel):
    """A JSON body in OpenAI's form. A field that is null is one that was not sent."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
