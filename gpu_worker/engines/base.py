"""The engine protocol. No torch here: the worker and the echo engine need none."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Protocol, runtime_checkable

from gpu_worker.engines.kv_memory import UNKNOWN, KvTokens
from promptq.contract.logprobs import TokenLogprob
from promptq.contract.queues import Priority
from promptq.contract.request import GenerateRequest


class FinishReason(StrEnum):
    """Why a row ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Row:
    """One request for the engine.

    Attributes:
        id: unique among the rows in the engine; the job's id.
        deadline: monotonic seconds after which the row ends with TIMEOUT, or None.
        priority: of its queue; more urgent rows are admitted first.
        queued_at: monotonic seconds at which the job was submitted; of one priority the older goes first.
        progress: token ids that an earlier run generated; the row goes on behind them, where the engine can `resume`.
    """

    id: str
    request: GenerateRequest
    deadline: float | None = None
    priority: Priority = "default"
    queued_at: float = 0.0
    progress: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class RowEnd:
    """How a row ended.

    Attributes:
        text: everything generated, by earlier runs too, cut at the stop string; partial when cancelled or timed out.
        completion_tokens: likewise of all runs, each token once.
        batch_size: the most rows that were live in one step with this one, itself included; 0 when it ended before any.
        error: (type, message) when the reason is ERROR.
        reused_tokens: of the prompt, those that were in memory and not computed.
        embedding: what the row gave in place of a text, where its request's `task` is embed.
    """

    reason: FinishReason
    text: str
    prompt_tokens: int
    completion_tokens: int
    batch_size: int
    error: tuple[str, str] | None = None
    reused_tokens: int = 0
    embedding: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """What one step did to one row.

    Attributes:
        text: newly generated text that can no longer change. Up to the row's `end`, it is what follows from the tokens:
            given as a row's `progress`, they lead to the same text.
        token_ids: completion tokens that this step added.
        end: set on the row's last event, and only there.
        logprobs: one for each of the tokens, where the request asks for them.
    """

    id: str
    text: str = ""
    token_ids: Sequence[int] = ()
    end: RowEnd | None = None
    logprobs: Sequence[TokenLogprob] = ()

    @property
    def tokens(self) -> int:
        """How many tokens this step added."""
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class StepStats:
    """What a step cost.

    Attributes:
        rows: rows that decoded in this step.
        prefill_tokens: prompt tokens that were computed in this step.
        reused_tokens: prompt tokens of rows that began in it which were copied from another slot instead.
        prefill_seconds: how long the step took, if it computed prompt tokens, else 0.
        decode_seconds: how long the step took, if rows decoded in it, else 0.
        right_drafts, wrong_drafts: guessed tokens that stood, and those that did not.
        kv_tokens: how full the memory is behind it.
        too_large: passes over the model that the memory was too short for.
    """

    rows: int = 0
    prefill_tokens: int = 0
    reused_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    right_drafts: int = 0
    wrong_drafts: int = 0
    kv_tokens: KvTokens = UNKNOWN
    too_large: int = 0


@dataclass(frozen=True, slots=True)
class LostRow:
    """A row whose text broke off elsewhere, and why: another run has to begin anew."""

    id: str
    cause: str


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did: to rows, and at what cost.

    Attributes:
        handed_back: rows that were not begun, and cannot be now: their jobs go back to the queue unharmed.
        lost: rows that ran and have no end: their jobs go back with the attempt counted. Neither has an event.
    """

    events: Sequence[Event] = ()
    stats: StepStats = StepStats()
    handed_back: Sequence[str] = ()
    lost: Sequence[LostRow] = ()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do. What is false is refused, with the field's name.

    Attributes:
        text: generates; false of an engine that has `embeddings` alone.
        resume: continues a row from token ids that were generated earlier, to the text it would have had; in 16-bit
            formats two tokens that are as good as equally likely may change places.
        preempt: gives up a running row with its progress.
        logprobs, json_schema, penalties, logit_bias: these parameters of a request.
        token_prompts: takes a prompt as token ids.
        tools: the model's chat template knows tools, and its calls have the Hermes form.
        adapters: LoRA adapters by name.
        embeddings: vectors in place of text.
        streaming: text comes with each step, not only at the end.
    """

    text: bool = True
    resume: bool = False
    preempt: bool = False
    logprobs: bool = False
    json_schema: bool = False
    penalties: bool = False
    logit_bias: bool = False
    token_prompts: bool = False
    tools: bool = False
    adapters: bool = False
    embeddings: bool = False
    streaming: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Those that the engine has."""
        return tuple(each.name for each in fields(self) if getattr(self, each.name))


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the engine runs, for registration and for `/v1/workers`.

    Attributes:
        tokenizer_json: counts a prompt's tokens as the engine does, in the form of the library `tokenizers`; empty:
            the engine has no such tokenizer.
        identity: another one for whatever else than the request changes the text; cached texts answer for one only.
    """

    model: str
    device: str
    dtype: str
    slots: int
    context_length: int
    details: dict[str, str] = field(default_factory=dict)
    tokenizer_json: str = field(default="", repr=False)
    capabilities: Capabilities = Capabilities()
    identity: str = ""


def check_rows(rows: Collection[Row], free: int, live: Set[str]) -> None:
    """Refuse rows that an engine with so many free slots and these live ids cannot take.

    Raises:
        ValueError: more rows than free slots, or an id that is already in.
    """
    ids = {row.id for row in rows}
    if len(rows) > free:
        raise ValueError(f"{len(rows)} rows for {free} free slots")
    if len(ids) < len(rows) or ids & live:
        raise ValueError("a row's id is already in the engine")


class Engine(Protocol):
    """Generates for several rows at once. Not thread-safe: one thread owns it.

    Rows are added, stepped until the event with their `end`, and gone after it. No method raises for the fault of one
    row: the `end` of such a row has its error.
    """

    @property
    def info(self) -> EngineInfo: ...

    def free_slots(self) -> int:
        """How many more rows may be added now."""
        ...

    def live_rows(self) -> int:
        """Rows added and not yet finished."""
        ...

    def add(self, rows: Sequence[Row]) -> None:
        """Take rows in, at most `free_slots()` of them.

        Raises:
            ValueError: more rows than free slots, or an id that is already in.
        """
        ...

    def step(self, now: float) -> StepResult:
        """Advance: prefill what was admitted, decode one token for each running row. `now` in monotonic seconds."""
        ...

    def cancel(self, ids: Iterable[str]) -> None:
        """End these rows at the next step, with their partial text. Unknown ids are ignored."""
        ...

    def preempt(self, ids: Iterable[str]) -> list[str]:
        """Give up running rows: their slots are free at once, and no event follows.

        Returns the ids given up. Unknown ones are ignored, and a row that is to end at the next step stays.
        """
        ...

    def close(self) -> None:
        """Let go of what the engine holds. It is not used afterwards; closing it again does nothing."""
        ...


@runtime_checkable
class NeedsServer(Protocol):
    """An engine whose work is done by a server elsewhere, which may be down or refuse."""

    @property
    def trouble(self) -> str:
        """Why it takes no rows now, and when it tries again; empty: it does."""
        ...


def trouble_of(engine: Engine) -> str:
    """Why an engine takes no rows now; empty: it does, or does not depend on a server."""
    return engine.trouble if isinstance(engine, NeedsServer) else ""
