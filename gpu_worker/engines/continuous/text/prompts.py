"""From a request to token ids, the way the model's own tokenizer does it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from gpu_worker.engines.continuous.text.chat_parts import chat_parts, mapped, texts
from gpu_worker.engines.continuous.text.quoting import Quoting
from gpu_worker.engines.continuous.text.special_tokens import SpecialTokens
from promptq.contract.errors import InvalidRequest
from promptq.contract.request import ANY_OBJECT, GenerateRequest
from promptq.contract.tools import CALL_OPEN


class PromptEncoder:
    """Encodes prompts as they are, and chats by the model's template.

    In a prompt the text of a special token is that token. In a turn's content it is text: a user ends no turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, special: SpecialTokens) -> None:
        self._tokenizer = tokenizer
        self._special = special

    def encode(self, request: GenerateRequest) -> list[int]:
        """Token ids of the prompt, or of the chat up to the assistant's turn, or within that where it is to go on.

        Raises:
            InvalidRequest: a chat for a model without a chat template, or one its template refuses; an empty prompt.
        """
        if request.prompt_token_ids is not None:
            return list(request.prompt_token_ids)
        if request.messages is not None:
            ids = self._encode_chat(request)
        else:
            ids = list(self._tokenizer(request.prompt)["input_ids"])
        if not ids:
            raise InvalidRequest("the prompt has no tokens", param="prompt")
        return ids

    def _encode_chat(self, request: GenerateRequest) -> list[int]:
        if not self._tokenizer.chat_template:
            message = "the model has no chat template: give `prompt` instead of `messages`"
            raise InvalidRequest(message, param="messages")
        self._check_tools(request)
        parts, goes_on = chat_parts(request), request.continue_final_message
        contents = list(dict.fromkeys(texts(parts)))
        quoted = any(map(self._special.is_in, contents)) and not self._tokenizer.split_special_tokens
        if quoted and not self._tokenizer.is_fast:
            message = "a content has a special token's text in it, which this model's tokenizer takes for the token"
            raise InvalidRequest(message, param="messages")
        if not quoted:
            return list(self._render(parts, goes_on=goes_on, tokenize=True))

        def render(replaced: Sequence[str]) -> str:
            change = dict(zip(contents, replaced, strict=True)).__getitem__
            return str(self._render(mapped(parts, change), goes_on=goes_on, tokenize=False))

        return self._quoting.encode(render, contents)

    def _check_tools(self, request: GenerateRequest) -> None:
        field = "tools" if request.offered_tools else "messages"
        calls = any(turn.tool_calls or turn.role == "tool" for turn in request.messages or ())
        if (request.offered_tools or calls) and not self.knows_tools:
            raise InvalidRequest(f"{field}: the model's chat template does not know tools", param=field)

    @cached_property
    def knows_tools(self) -> bool:
        """Whether the chat template tells the model of tools, and to call them in the Hermes form."""
        if not self._tokenizer.chat_template or CALL_OPEN in self._special.ids:
            return False
        tool = {"type": "function", "function": {"name": "probed", "description": "", "parameters": ANY_OBJECT}}
        parts = {"turns": [{"role": "user", "content": "Hello"}], "tools": [tool]}
        try:
            said = self._render(parts, goes_on=False, tokenize=False)
        except InvalidRequest:
            return False
        return "probed" in said and CALL_OPEN in said

    def _render(self, parts: dict[str, Any], *, goes_on: bool, tokenize: bool) -> Any:
        try:
            return self._tokenizer.apply_chat_template(
                parts["turns"],
                tools=parts["tools"],
                add_generation_prompt=not goes_on,
                continue_final_message=goes_on,
                tokenize=tokenize,
                return_dict=False,
            )
        except Exception as error:  # a template is a program of the model's maker: it may raise anything
            message = f"the model's chat template refuses these messages: {error}"
            raise InvalidRequest(message, param="messages") from error

    @cached_property
    def _quoting(self) -> Quoting:
        return Quoting(self._tokenizer, self._special)


def tokenizer_json(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer for others to count with, or an empty string where its file does not say all that it does."""
    if not tokenizer.is_fast or tokenizer.split_special_tokens:
        return ""
    return str(tokenizer.backend_tokenizer.to_str())
