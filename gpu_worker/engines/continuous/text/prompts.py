"""From a request to token ids, the way the model's own tokenizer does it."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from promptq.contract.errors import InvalidRequest
from promptq.contract.request import GenerateRequest, Message


def encode(tokenizer: PreTrainedTokenizerBase, request: GenerateRequest) -> list[int]:
    """Token ids of the prompt, or of the chat up to the assistant's turn.

    Raises:
        InvalidRequest: a chat for a model without a chat template, or one its template refuses; an empty prompt.
    """
    if request.messages is not None:
        ids = _encode_chat(tokenizer, request.messages)
    else:
        ids = list(tokenizer(request.prompt)["input_ids"])
    if not ids:
        raise InvalidRequest("the prompt has no tokens", param="prompt")
    return ids


def tokenizer_json(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer for others to count with, or an empty string where its file does not say all that `encode` does."""
    if not tokenizer.is_fast or tokenizer.split_special_tokens:
        return ""
    return str(tokenizer.backend_tokenizer.to_str())


def _encode_chat(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    if not tokenizer.chat_template:
        raise InvalidRequest("the model has no chat template: give `prompt` instead of `messages`", param="messages")
    turns = [message.model_dump() for message in messages]
    try:
        return list(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False))
    except Exception as error:  # a template is a program of the model's maker: it may raise anything
        raise InvalidRequest(f"the model's chat template refuses these messages: {error}", param="messages") from error
