"""Real tokenizers of the kinds that models bring, trained on a few lines."""

from __future__ import annotations

import json
from collections.abc import Callable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaTokenizerFast, PreTrainedTokenizerFast

CORPUS = ["Hello there, how are you there?", "user assistant system", "I am fine, and the answer is 42 there."] * 20
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOL_CHAT = (  # as Qwen's and Hermes' have it
    "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}</tools> "
    "Write <tool_call>\nJSON\n</tool_call>\n{% endif %}"
    "{% for message in messages %}{{ message.role }}: {% if message.role == 'tool' %}<tool_response>{% endif %}"
    "{{ message.content }}{% for call in message.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
METASPACE = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
)


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2, Llama 3, Qwen and the default model have it."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return _wrapped(backend)


def llama() -> PreTrainedTokenizerFast:
    """As Llama 2 and Mistral have it: BPE, a mark for spaces, bytes for what it does not know."""
    vocab, merges = _pieces()
    return _specials(LlamaTokenizerFast(vocab=vocab, merges=merges, bos_token="<s>", eos_token="</s>"))


def llama_legacy() -> PreTrainedTokenizerFast:
    """As their first tokenizer.json had it: the mark comes from normalizers, in front of each piece of text."""
    vocab, merges = _pieces()
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = METASPACE
    return _wrapped(backend)


def _pieces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a BPE with byte fallback."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400))
    learned = json.loads(backend.to_str())["model"]
    texts = [*SPECIAL, *BYTES, *sorted(learned["vocab"], key=learned["vocab"].get)]
    # As files made out of a SentencePiece model may have it: merges that lead to a special token.
    texts += ["<s", "</", "</s"]
    merges = [*map(tuple, learned["merges"]), ("<", "s"), ("<s", ">"), ("<", "/"), ("</", "s"), ("</s", ">")]
    return {text: id for id, text in enumerate([*texts, "<", "/", ">"])}, merges


def unigram() -> PreTrainedTokenizerFast:
    """As T5 and Gemma's kin have it: the likeliest pieces."""
    words = sorted({"▁" + word for line in CORPUS for word in line.split()})
    letters = sorted({letter for word in words for letter in word})
    pieces = [(text, 0.0) for text in SPECIAL + BYTES]
    pieces += [(word, -5.0) for word in words] + [(letter, -10.0) for letter in letters if letter not in words]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = METASPACE
    return _wrapped(backend)


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte level": byte_level,
    "llama": llama,
    "llama, legacy": llama_legacy,
    "unigram": unigram,
}


def _wrapped(backend: Tokenizer) -> PreTrainedTokenizerFast:
    return _specials(PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>"))


def _specials(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT
    return tokenizer
