"""The types of settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from promptq.contract.addresses import bare_host, origin

Host = Annotated[str, AfterValidator(bare_host)]
Origin = Annotated[str, AfterValidator(lambda url: url and origin(url))]
Port = Annotated[int, Field(ge=0, le=65535)]
# Bounds in which every sum with a time stays a time, and Redis takes every lifetime.
Seconds = Annotated[float, Field(gt=0, le=10**9)]
NotNegative = Annotated[float, Field(ge=0, le=10**9)]
Count = Annotated[int, Field(ge=1, le=10**9)]
CountOrNone = Annotated[int, Field(ge=0, le=10**9)]
Share = Annotated[float, Field(gt=0, le=1)]
