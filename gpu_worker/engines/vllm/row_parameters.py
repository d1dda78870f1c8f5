"""What travels with a request through vLLM, to where its tokens are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from transformers import AutoTokenizer

from gpu_worker.engines.continuous.grammar import Grammars
from gpu_worker.engines.continuous.scheduler.sequence import SequenceState
from gpu_worker.engines.continuous.vocabulary import Vocabulary
from promptq.contract.request import GenerateRequest

KEY: Final = "promptq"
"""Under which it lies in vLLM's `extra_args`."""


@dataclass(frozen=True, slots=True)
class RowParameters:
    """How one row's tokens are chosen.

    Attributes:
        resumed: how many of the prompt's last tokens an earlier run generated.
    """

    request: GenerateRequest
    seed: int
    resumed: int

    @classmethod
    def extra_arguments(cls, sequence: SequenceState) -> dict[str, Any] | None:
        """For vLLM; None: the row is greedy and nothing else."""
        request = sequence.row.request
        if not (request.temperature or sequence.counts or sequence.bias or sequence.grammar):
            return None
        return {KEY: cls(request, sequence.seed, sequence.resumed)}


def sampling_parameters(sequence: SequenceState) -> Any:
    """vLLM's own: greedy, and tokens without their text; they end where the row does or before."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    request = sequence.row.request
    return SamplingParams(
        temperature=0,
        max_tokens=sequence.limit - sequence.generated,
        stop_token_ids=sorted(sequence.ends),
        ignore_eos=True,
        detokenize=False,
        logprobs=request.top_logprobs if request.logprobs else None,
        output_kind=RequestOutputKind.DELTA,
        extra_args=RowParameters.extra_arguments(sequence),
    )


@cache
def grammars(tokenizer: str, revision: str | None, vocabulary: int, ends: tuple[int, ...]) -> Grammars:
    """One compiler for each process: what the engine has compiled ahead is there where tokens are chosen."""
    loaded = AutoTokenizer.from_pretrained(tokenizer, revision=revision, trust_remote_code=False)
    return Grammars(Vocabulary(loaded, vocabulary, ends))


def grammars_of(config: Any) -> Grammars:
    """Those for vLLM's config, whose `additional_config` has the ids that end a text."""
    model = config.model_config
    ends = tuple(config.additional_config[KEY])
    return grammars(model.tokenizer, model.tokenizer_revision, model.get_vocab_size(), ends)
