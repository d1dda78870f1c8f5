"""The models that are served, from `PROMPTQ_MODELS_FILE` or from the settings of one model."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from promptq.contract.errors import ModelNotFound, SettingsError
from promptq.contract.queues import PRIORITIES, QueueName, queues_of

VARIABLE: Final = "PROMPTQ_MODELS_FILE"
DTypeName = Literal["auto", "float32", "bfloat16", "float16"]


def _engine_name(value: Any) -> Any:
    """`transformers` was the name of the continuous engine in 0.1."""
    return "continuous" if value == "transformers" else value


OURS: Final = ("continuous", "echo")
"""The engines whose options are ours."""
EngineName = Annotated[Literal["continuous", "vllm", "upstream", "echo"], BeforeValidator(_engine_name)]


def _kernels_name(value: Any) -> Any:
    """It was yes or no in 0.2."""
    try:
        return "auto" if TypeAdapter(bool).validate_python(value) else "off"
    except ValidationError:
        return value


KernelsName = Annotated[Literal["auto", "avx512", "avx2", "neon", "off"], BeforeValidator(_kernels_name)]
# Without a colon, which parts a model from its adapter, and in RQ's names from the priority.
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
_Count = Annotated[int, Field(ge=1, le=10**9)]
OWN_OPTIONS: Final = frozenset(
    [
        "adapter", "batching", "drafts", "echo_start_seconds", "echo_tokens_per_second", "gpu_memory_share",
        "kernels", "max_preemptions", "max_wait_ms", "prefill_tokens", "preemption", "prefixes",
    ]
)  # fmt: skip
"""The options of our own engines: settings of workers, by name."""
_CountOrNone = Annotated[int, Field(ge=0, le=10**9)]
_Amount = Annotated[float, Field(ge=0, le=10**15)]


class ModelEntry(BaseModel):
    """One model: what clients call it, what it is, and what runs it. What is None is as the settings have it.

    Attributes:
        source: a Hugging Face id, a folder, or the packaged default; empty: the name is one.
        gpus: for each of its workers; None: one where workers are placed on GPUs, 0: it runs on the CPU.
        max_workers: None: as many as there is room for; one, where it computes elsewhere.
        resources: what each of its workers takes of a cluster beside GPUs, under the cluster's names: `CPU`, `memory`.
        python: the interpreter of an environment of its own for its workers, which has promptq's modules too.
        options: for the engine, as it names them; for our own engines OWN_OPTIONS.
        adapters: LoRA adapters by name, each a folder or an id; clients call one `model:adapter`.
        base_url, upstream_model, api_key_variable: of `upstream`: the server, what it calls the model, and the
            environment variable that has the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ModelName
    default: bool = False
    source: str = ""
    revision: str = ""
    engine: EngineName = "continuous"
    device: str | None = None
    dtype: DTypeName | None = None
    slots: _Count | Literal["auto"] | None = None
    context_length: _CountOrNone | None = None
    gpus: Annotated[int, Field(ge=0, le=64)] | None = None
    min_workers: _CountOrNone = 0
    max_workers: _Count | None = None
    options: Mapping[str, Any] = Field(default_factory=dict)
    adapters: Mapping[ModelName, str] = Field(default_factory=dict)
    resources: Mapping[str, _Amount] = Field(default_factory=dict)
    python: str = ""
    base_url: str = ""
    upstream_model: str = ""
    api_key_variable: str = ""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.name in PRIORITIES:
            raise ValueError(f"name: {self.name} is a queue's name")
        if self.engine in OURS:
            self._check_own_options()
        if (self.engine == "upstream") != bool(self.base_url):
            raise ValueError("base_url: the engine upstream needs one, and no other has one")
        if self.base_url and not re.match(r"https?://[^/\s]", self.base_url):
            raise ValueError("base_url: must begin with http:// or https:// and a host")
        if self.max_workers is not None and self.min_workers > self.max_workers:
            raise ValueError(f"min_workers: {self.min_workers} is above max_workers, {self.max_workers}")
        return self

    def _check_own_options(self) -> None:
        if unknown := sorted(set(self.options) - OWN_OPTIONS):
            known = ", ".join(sorted(OWN_OPTIONS))
            raise ValueError(f"options: {unknown[0]} is none of the engine {self.engine}; it has {known}")
        if self.adapters:
            raise ValueError(
                f"adapters: the engine {self.engine} has none by name; an entry of its own may have "
                "options = { adapter = folder }"
            )

    @property
    def loaded_from(self) -> str:
        """What the engine loads."""
        return self.source or self.name

    @property
    def is_elsewhere(self) -> bool:
        """Whether its workers compute nothing on this machine, and so take no room on it."""
        return self.engine == "upstream"

    def as_settings(self) -> dict[str, Any]:
        """What it says, under the names that the workers' settings have for it."""
        given = {name: getattr(self, name) for name in ("device", "dtype", "slots", "context_length")}
        always = {"engine": self.engine, "model": self.loaded_from, "model_revision": self.revision}
        own = dict(self.options) if self.engine in OURS else {}
        return always | own | {name: value for name, value in given.items() if value is not None}

    def identity(self, dtype: str) -> str:
        """What the catalogue says of the texts: model, revision and number format; part of the cache key.

        Two entries of one source may differ in what only their workers know, so the name counts too.
        """
        named = "" if self.name == self.loaded_from else f"{self.name}="
        return f"{named}{self.loaded_from}@{self.revision}:{self.dtype or dtype}"


@dataclass(frozen=True)
class Catalogue:
    """All models, the default one among them.

    Attributes:
        default: the model of requests that name none; its queues have RQ's plain names.
    """

    models: tuple[ModelEntry, ...]
    default: ModelEntry

    @classmethod
    def of(cls, models: Sequence[ModelEntry]) -> Self:
        """The catalogue of these models, at least one."""
        marked = [model for model in models if model.default]
        return cls(tuple(models), (marked or list(models))[0])

    @cached_property
    def by_name(self) -> dict[str, ModelEntry]:
        """The models by what clients call them."""
        return {model.name: model for model in self.models}

    @cached_property
    def queues(self) -> tuple[QueueName, ...]:
        """Every queue: those of one model together, the most urgent first."""
        return tuple(queue for model in self.models for queue in queues_of(model.name))

    @cached_property
    def rq_names(self) -> list[str]:
        """What RQ calls these queues, in their order."""
        return [queue.rq_name(self.default.name) for queue in self.queues]

    @cached_property
    def names(self) -> list[str]:
        """All that a request may name: models, and models with one of their adapters."""
        return [name for model in self.models for name in (model.name, *(f"{model.name}:{a}" for a in model.adapters))]

    def find(self, name: str) -> tuple[ModelEntry, str]:
        """The model of that name, and the adapter in it or an empty string; the default model for an empty name.

        Raises:
            ModelNotFound: there is none; the message names those that there are.
        """
        base, _, adapter = name.partition(":")
        entry = self.by_name.get(base) if name else self.default
        if entry is None or (adapter and adapter not in entry.adapters) or name.endswith(":"):
            raise ModelNotFound(name, self.names)
        return entry, adapter

    def check_default(self, before: Catalogue) -> None:
        """See that running programs can go over to this catalogue.

        Raises:
            SettingsError: another model is the default, whose queues have the plain names.
        """
        if self.default.name != before.default.name:
            change = f"the default model was {before.default.name}, and is {self.default.name} now"
            raise SettingsError(f"{VARIABLE}: {change}: that needs a restart, and empty queues", param=VARIABLE)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: Annotated[list[ModelEntry], Field(min_length=1)]

    @model_validator(mode="after")
    def _no_model_twice(self) -> Self:
        names = [model.name for model in self.model]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise ValueError(f"two models have the name {twice!r}")
        if sum(model.default for model in self.model) > 1:
            raise ValueError("default: only one model is the default")
        return self


def read_catalogue(path: str) -> Catalogue:
    """The models that a file lists.

    Raises:
        SettingsError: it cannot be read, or something in it is wrong; with the line of each fault.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
        return Catalogue.of(_File.model_validate(tomllib.loads(text)).model)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{VARIABLE}: {path} cannot be read: {error}", param=VARIABLE) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{VARIABLE}: {path}: {error}", param=VARIABLE) from None
    except ValidationError as error:
        raise SettingsError(f"{VARIABLE}: {path}: {_faults(error, text)}", param=VARIABLE) from None


def _faults(error: ValidationError, text: str) -> str:
    """Each fault once; where several kinds of value are allowed, pydantic tells one for each."""
    by_place: dict[str, str] = {}
    for detail in error.errors():
        message = detail["msg"].removeprefix("Value error, ")
        by_place.setdefault(_place(detail["loc"], message, text), message)
    return "; ".join(f"{place}: {message}" if place else message for place, message in by_place.items())


def _place(parts: Sequence[int | str], message: str, text: str) -> str:
    """Where a fault is, as `line 12, model[1].gpus`; empty: it is of the file as a whole."""
    if len(parts) < 2:
        return str(parts[0]) if parts else ""
    # What is wrong about the entry as a whole names the field itself.
    key = str(parts[2]) if len(parts) > 2 else message.partition(":")[0]
    field = f".{key}" if len(parts) > 2 else ""
    return f"line {_line_of(text, int(parts[1]), key)}, model[{parts[1]}]{field}"


def _line_of(text: str, index: int, key: str) -> int:
    """The line of a key in the index-th `[[model]]`, or of that header where the key is not written."""
    seen, header = -1, 1
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*\[\[\s*model\s*\]\]", line):
            seen += 1
            header = number if seen == index else header
        if seen == index and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[=.]""", line):
            return number
    return header
