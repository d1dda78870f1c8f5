"""What the scaler tells a spare, a worker process that waits: one line on its stdin, and it is a worker."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from promptq.contract.errors import SettingsError


class Assignment(BaseModel):
    """One spare becomes one worker.

    Attributes:
        environment: variables in which its environment differs from the one it was started with.
        at: when it was decided, in wall time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: dict[str, str]
    at: float

    def line(self) -> bytes:
        """As it is sent."""
        return self.model_dump_json().encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """As it was sent.

        Raises:
            SettingsError: it is not an assignment.
        """
        try:
            return cls.model_validate_json(line)
        except ValidationError as error:
            detail = error.errors()[0]
            where = ".".join(map(str, detail["loc"])) or "line"
            raise SettingsError(f"no assignment on stdin: {where}: {detail['msg']}", param="stdin") from None
