"""How gunicorn serves the API; every number is one of our settings. Read by gunicorn, started by `python -m api`."""

from typing import Any

from api import gunicorn_worker, metric_files
from promptq.contract.addresses import host_port
from promptq.contract.settings import ApiSettings

settings = ApiSettings.load()

wsgi_app = "api.app:create_app()"
bind = host_port(settings.api_host, settings.api_port)
workers = settings.api_processes
worker_class = "api.gunicorn_worker.DrainingWorker"
worker_connections = settings.api_connections + gunicorn_worker.SPARE_CONNECTIONS
# Redis clients, the subscription and the metric files must not be shared over a fork.
preload_app = False
keepalive = 5
graceful_timeout = 15
logger_class = "api.gunicorn_worker.OwnLogger"
accesslog = None
control_socket_disable = True


def on_starting(arbiter: Any) -> None:
    """Before any process of the API exists."""
    metric_files.prepare(settings, arbiter.pid)
    if settings.models_file:
        gunicorn_worker.read_models_on_hangup(arbiter)


def child_exit(_arbiter: Any, worker: Any) -> None:
    """Take a dead process out of the gauges."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)


def on_exit(arbiter: Any) -> None:
    """After the last process of the API has gone."""
    metric_files.remove(settings, arbiter.pid)
