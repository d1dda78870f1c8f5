"""Why a worker has no node yet. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scaler.fleets.ray.order import Needs

Resources = Mapping[str, float]


def why_pending(needs: Needs, nodes: Sequence[Resources], free: Resources) -> str:
    """One sentence.

    Args:
        nodes: what each live node has in all.
        free: what nobody uses, of all nodes together.
    """
    asked = _words(needs.by_name)
    if not any(_has(node, needs) for node in nodes):
        return f"waits for Ray: no node has {asked}, unless its autoscaler adds one"
    short = {name: free.get(name, 0.0) for name, amount in needs.by_name.items() if free.get(name, 0.0) < amount}
    if short:
        return f"waits for Ray: it needs {asked}, and {_words(short)} is free"
    return f"waits for Ray to start it on a node with {asked}"


def _has(node: Resources, needs: Needs) -> bool:
    return all(node.get(name, 0.0) >= amount for name, amount in needs.by_name.items())


def _words(resources: Resources) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())
