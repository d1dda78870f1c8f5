"""What the fleet asks of the API server: pods of its own, and the Deployment that owns them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import urllib3
from kubernetes import config
from kubernetes.client import ApiClient, ApiException, Configuration
from kubernetes.watch import Watch

from promptq.contract.errors import SettingsError
from scaler.fleets.kubernetes.pods import FLEET_LABEL, Pod

CONNECT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 10.0
WATCH_SECONDS: Final = 300
"""How long the server keeps a watch open; it is then asked anew."""
SILENCE_SECONDS: Final = 330.0
"""A watch without a byte for so long is on a dead connection."""
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
NOT_FOUND: Final = 404
GONE: Final = 410
_THIS_POD: Final = frozenset([400, 403, 422])
"""Refusals that are about what was asked for: a quota, a policy, a wrong field."""


class ApiTrouble(Exception):
    """The API server did not do what it was asked.

    Attributes:
        status: of the answer; 0: there was none.
        is_about_the_pod: it would do other things.
        retry_after: seconds that it asked to be left alone for.
    """

    def __init__(self, message: str, status: int = 0, is_about_the_pod: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.is_about_the_pod = is_about_the_pod
        self.retry_after = retry_after


class PodApi:
    """The pods of one fleet in one namespace.

    The client's untyped half: its classes of every kind of object take long to import, and refuse what a template
    has that is newer than they are; a server that is asked to be strict refuses what it does not know itself.

    Raises:
        ApiTrouble: by every method.
    """

    def __init__(self, configuration: Configuration, namespace: str, fleet: str) -> None:
        # Its own tries would go on in the middle of a round; the fleet has its own, between rounds.
        configuration.retries = False
        self._client = ApiClient(configuration)
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._deployment = f"/apis/apps/v1/namespaces/{namespace}/deployments/{fleet}"
        self._selector = f"{FLEET_LABEL}={fleet}"

    @classmethod
    def of_the_cluster(cls, namespace: str, fleet: str) -> PodApi:
        """By the service account of this pod, or by the user's kubeconfig.

        Args:
            namespace: empty: the one of the account, or of the context.

        Raises:
            SettingsError: there is neither.
        """
        configuration = Configuration()
        try:
            if _NAMESPACE_FILE.exists():
                config.load_incluster_config(client_configuration=configuration)
                found = _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
            else:
                config.load_kube_config(client_configuration=configuration)
                found = config.list_kube_config_contexts()[1]["context"].get("namespace", "default")
        except config.ConfigException as error:
            message = f"PROMPTQ_FLEET=kubernetes: no cluster is known here: {error}"
            raise SettingsError(message, param="PROMPTQ_FLEET") from None
        return cls(configuration, namespace or found, fleet)

    def create(self, pod: Pod) -> Pod:
        """Make a pod. Gives it as the server has it."""
        made: Pod = self._ask("POST", self._pods, {"fieldValidation": "Strict"}, dict(pod))
        return made

    def delete(self, name: str, grace_seconds: int | None) -> None:
        """Let a pod end; one that has ended already is no trouble.

        Args:
            grace_seconds: None: as its own spec says; 0: without asking its node.
        """
        given = {} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        try:
            self._ask("DELETE", f"{self._pods}/{name}", given)
        except ApiTrouble as trouble:
            if trouble.status != NOT_FOUND:
                raise

    def owner(self) -> dict[str, Any]:
        """A reference to the fleet's Deployment, with which its pods are deleted.

        As their controller it also lets `kubectl drain` and the cluster's autoscaler move them, which stop at pods
        that nobody controls. To block the owner's deletion would need a further right, and serves nothing here.
        """
        meta = self._ask("GET", self._deployment)["metadata"]
        return {
            "apiVersion": "apps/v1", "kind": "Deployment", "name": meta["name"], "uid": meta["uid"],
            "controller": True, "blockOwnerDeletion": False,
        }  # fmt: skip

    def list(self) -> tuple[list[Pod], str]:
        """Every pod of the fleet, and the version from which a watch goes on."""
        found = self._ask("GET", self._pods, {"labelSelector": self._selector})
        return found["items"], found["metadata"]["resourceVersion"]

    def watch(self, version: str) -> Iterator[tuple[str, Pod]]:
        """What happens to them after that version: ADDED, MODIFIED, DELETED or BOOKMARK, and the pod. Ends by itself.

        Raises:
            ApiTrouble: with GONE: the server does not know that version any more.
        """

        def follow(*, watch: bool, _preload_content: bool, timeout_seconds: int) -> Any:
            asked = {
                "labelSelector": self._selector, "resourceVersion": version, "allowWatchBookmarks": True,
                "timeoutSeconds": timeout_seconds, "watch": watch,
            }  # fmt: skip
            return self._send("GET", self._pods, asked, None, SILENCE_SECONDS).response

        events = Watch("object").stream(follow, timeout_seconds=WATCH_SECONDS, deserialize=False)
        try:
            for event in events:
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise ApiTrouble(status.get("message", "the watch failed"), int(status.get("code", 0)))
                yield event["type"], event["object"]
        except (urllib3.exceptions.HTTPError, OSError, ValueError, KeyError) as error:
            raise ApiTrouble(f"the watch broke: {error}") from None

    def _ask(self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None) -> Any:
        return json.loads(self._send(method, path, query or {}, body, ANSWER_SECONDS).read())

    def _send(self, method: str, path: str, query: dict[str, Any], body: Any, seconds: float) -> Any:
        """The answer, whose body is not read yet."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        try:
            request = self._client.param_serialize(
                method, path, query_params=list(query.items()), header_params=headers, body=body,
                auth_settings=["BearerToken"],
            )  # fmt: skip
            response = self._client.call_api(*request, _request_timeout=(CONNECT_SECONDS, seconds))
            if not 200 <= response.status <= 299:
                raise _trouble(response.status, response.read(), response.headers)
            return response
        except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiTrouble(f"the API server does not answer: {' '.join(str(error).split())}") from None


def _trouble(status: int, body: bytes, headers: Any) -> ApiTrouble:
    try:
        message = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        message = body[:200].decode(errors="replace") or "nothing"
    wait = headers.get("Retry-After", "")
    return ApiTrouble(
        f"the API server answered {status}: {message}", status, status in _THIS_POD,
        float(wait) if wait.isdigit() else 0.0,
    )  # fmt: skip
