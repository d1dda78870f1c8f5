"""The turns of a chat, which OpenAI's endpoints write in different ways. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from promptq.contract.request import Text
from promptq.openai.body import Body


class Turn(Body):
    """One turn; of which parts its content may be made, a kind of turn says itself."""

    role: Literal["developer", "system", "user", "assistant"]
    content: Text

    def turn(self) -> dict[str, Any]:
        """As the model's template knows it."""
        return {"role": "system" if self.role == "developer" else self.role, "content": self.content}


def joining(*types: str) -> Callable[[Any], Any]:
    """Makes one text of a content's parts; every part that is of none of these types is refused."""

    def join(content: Any) -> Any:
        if not isinstance(content, list):
            return content
        texts = [part.get("text") if isinstance(part, dict) and part.get("type") in types else None for part in content]
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise ValueError(f"only parts of type {' and '.join(types)} are supported, each with a text")
        return "".join(map(str, texts))

    return join
