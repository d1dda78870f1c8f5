"""Tiny random models that embed, in folders as sentence-transformers keeps them, and what they are held against."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

WORDS = ["a", "and", "at", "day", "far", "in", "it", "near", "night", "on", "river", "road", "sea", "the", "to",
         "town", "was", "wind"]  # fmt: skip
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
VOCABULARY = list(dict.fromkeys(TOKENS))
PLACES = 64
# Wide initial weights: with the usual ones all embeddings of a random model lie close together.
SHAPE: dict[str, Any] = {"vocab_size": len(VOCABULARY), "pad_token_id": 0, "initializer_range": 0.3}
DEEP = SHAPE | {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = SHAPE | {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
"""With heads of 32 numbers, of which vLLM's attention on a CPU wants as many."""
OFFSET = DEEP | {"max_position_embeddings": PLACES + 2, "pad_token_id": 1}
"""Of those whose first token has the place behind the padding's."""
WIDE_OFFSET = WIDE | {"max_position_embeddings": PLACES + 2, "pad_token_id": 1}

KINDS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertModel(BertConfig(**DEEP, max_position_embeddings=PLACES)),
    "masked": lambda: BertForMaskedLM(BertConfig(**DEEP, max_position_embeddings=PLACES)),
    "roberta": lambda: RobertaModel(RobertaConfig(**OFFSET, type_vocab_size=1)),
    "xlm": lambda: XLMRobertaModel(XLMRobertaConfig(**OFFSET, type_vocab_size=1)),
    "mpnet": lambda: MPNetModel(MPNetConfig(**OFFSET)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(**SHAPE, dim=32, hidden_dim=48, n_layers=2, n_heads=4, max_position_embeddings=PLACES)
    ),
}
WIDE_KINDS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertModel(BertConfig(**WIDE, max_position_embeddings=PLACES)),
    "roberta": lambda: RobertaModel(RobertaConfig(**WIDE_OFFSET, type_vocab_size=1)),
    "xlm": lambda: XLMRobertaModel(XLMRobertaConfig(**WIDE_OFFSET, type_vocab_size=1)),
    "modernbert": lambda: ModernBertModel(
        ModernBertConfig(**WIDE, max_position_embeddings=PLACES, cls_token_id=2, sep_token_id=3)
    ),
    "qwen3": lambda: Qwen3ForCausalLM(
        Qwen3Config(**WIDE, head_dim=32, num_key_value_heads=1, max_position_embeddings=PLACES)
    ),
}
MODULES = ["Transformer", "Pooling", "Normalize"]


def word_pieces() -> PreTrainedTokenizerFast:
    """As BERT's has it. Its file asks for a cut, as those of many such models do."""
    backend = Tokenizer(models.WordPiece({token: id for id, token in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    backend.enable_truncation(7)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="[MASK]", **names)


def save(folder: Path, kind: str = "bert", modules: list[str] | None = MODULES, **files: Any) -> Path:
    """A model's folder.

    Args:
        kind: one of KINDS, or behind "wide " one of WIDE_KINDS.
        modules: what `modules.json` lists; None: there is none.
        files: `pooling`, `transformer` and `prompts`, each the content of the file of that part.
    """
    torch.manual_seed(7)
    kinds = WIDE_KINDS if kind.startswith("wide ") else KINDS
    kinds[kind.removeprefix("wide ")]().eval().save_pretrained(folder)
    word_pieces().save_pretrained(folder)
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    parts = [
        {"idx": at, "name": str(at), "path": paths.get(name, name), "type": f"sentence_transformers.models.{name}"}
        for at, name in enumerate(modules or ())
    ]
    (folder / "1_Pooling").mkdir()
    contents = {
        "modules.json": parts or None,
        "1_Pooling/config.json": files.get("pooling"),
        "sentence_bert_config.json": files.get("transformer"),
        "config_sentence_transformers.json": files.get("prompts"),
    }
    for name, content in contents.items():
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return folder
