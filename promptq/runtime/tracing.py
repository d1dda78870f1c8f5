"""Which traces a program makes."""

from __future__ import annotations

from promptq.contract.errors import SettingsError
from promptq.contract.settings import CommonSettings
from promptq.runtime.traces import Traces


def make_traces(program: str, settings: CommonSettings, instance: str = "") -> Traces:
    """What the settings ask for. To be called in the process that sends: it has a thread.

    Args:
        program: api, gpu_worker or dispatcher.
        instance: what tells the process from others of its program, such as a worker's name.

    Raises:
        SettingsError: the packages are not installed.
    """
    if settings.traces == "off":
        return Traces()
    try:
        from promptq.runtime.traces_otlp import OtlpTraces
    except ImportError as error:
        raise SettingsError(
            f"PROMPTQ_TRACES=otlp needs {error.name}; run: pip install -r requirements/traces.txt"
        ) from None
    return OtlpTraces(program, instance)
