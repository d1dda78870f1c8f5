"""The command `promptq up`."""

from __future__ import annotations

import signal

from promptq.contract.errors import RedisUnavailable, SettingsError
from promptq.contract.exit_codes import ExitCode
from promptq.queue.embedded import ServerError
from promptq.up.checks import UpSettings, install_default_model, locked
from promptq.up.console import fail, say
from promptq.up.programs import CannotStart
from promptq.up.stack import Stack


def main() -> ExitCode:
    """Run until a stop is requested. The exit code is 0 after an orderly stop."""
    try:
        settings = UpSettings()
        with locked(settings.api.data_dir):
            settings.check()
            install_default_model(settings.worker, say)
            return _run(Stack(settings))
    except SettingsError as error:
        return fail(error, ExitCode.SETTINGS)


def _run(stack: Stack) -> ExitCode:
    stack.stop.install()
    if stack.settings.api.models_file:
        signal.signal(signal.SIGHUP, lambda _number, _frame: stack.read_models())
    try:
        stack.up()
        return ExitCode.OK
    except RedisUnavailable as error:
        return fail(error, ExitCode.REDIS_UNAVAILABLE)
    except ServerError as error:
        return fail(error, ExitCode.CRASHED)
    except CannotStart as error:
        say(error.message)
        return ExitCode.SETTINGS if error.code == ExitCode.SETTINGS else ExitCode.CRASHED
    finally:
        stack.down()
