"""Notice that a worker needs what no node has, say so, and give up where nothing would add such a node.

Ray keeps such actors and tasks pending without a word, for ever. What one of ours needs is compared with what each node
has in all, so that nodes which are only busy are waited for as before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from featurestore.base.number_words import counted, size
from featurestore.errors import JobFailed

LOOK_SECONDS = 10.0  # how often it is looked; said at the second look, so that a node that just joins is not missed
GIVE_UP_SECONDS = 60.0  # a node that somebody starts by hand beside the run joins within seconds
_SHOWN_NODES = 3  # kinds of nodes in a sentence

_EPSILON = 1e-6  # Ray counts resources in ten-thousandths


@dataclass(frozen=True)
class Unmet:
    """What is asked for and had by no node, as one clause, and whether something may add a node that has it."""

    reason: str
    may_grow: bool


class Shortage:
    """How long demand cannot be met, and what follows from that.

    Args:
        remedy: What the user can change so that less is asked for.
    """

    def __init__(self, remedy: str) -> None:
        self._remedy = remedy
        self._since: float | None = None

    def look(self, unmet: Unmet | None, now: float) -> str | None:
        """Take note of what is unmet now.

        Returns:
            A sentence, once it is sure; None while nothing is unmet.

        Raises:
            JobFailed: Nothing would ever meet it.
        """
        if unmet is None:
            self._since = None
            return None
        if self._since is None:
            self._since = now
        waited = now - self._since
        if unmet.may_grow:
            hint = "waiting for the cluster's autoscaler to add one; `ray status` on the head node says what it can add"
            return f"{unmet.reason}; {hint}" if waited else None
        if waited >= GIVE_UP_SECONDS:
            raise JobFailed(f"{unmet.reason}, and there is no autoscaler to add one; {self._remedy}")
        left = f"the run ends in a minute unless such a node joins; {self._remedy}"
        return f"{unmet.reason}, and there is no autoscaler to add one: {left}" if waited else None


def unmet(ray: Any, what: str, needs: Mapping[str, float]) -> Unmet | None:
    """Whether no node of a cluster has what one actor or task of ours needs.

    Args:
        ray: The `ray` module, connected.
        what: Who needs it, e.g. "a worker".
        needs: Resource -> amount, as Ray names and counts them.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(name, 0) >= amount - _EPSILON for name, amount in needs.items()) for node in nodes):
        return None
    kinds = dict.fromkeys(_in_words({name: node.get(name, 0) for name in needs}) for node in nodes)
    had = "; ".join(list(kinds)[:_SHOWN_NODES]) + ("; ..." if len(kinds) > _SHOWN_NODES else "")
    reason = f"no node of the cluster has what {what} asks for, {_in_words(needs)} (there are nodes with {had})"
    return Unmet(reason, may_grow(ray))


def may_grow(ray: Any) -> bool:
    """Whether an autoscaler looks after this cluster.

    Ray's monitor runs on every head node. Where it may add nothing, it makes a type of its own of each node, called
    after the node; an autoscaler's nodes have the types of its configuration.
    """
    own = {f"node_{node['NodeID']}" for node in ray.nodes()}
    try:
        return not _node_types(ray) <= own
    except Exception:  # noqa: BLE001  (Ray's inner interfaces: who cannot know must not end a run that a node would come for)
        return True


def _node_types(ray: Any) -> set[str]:
    """The types of nodes that the monitor reports; none where there is no monitor."""
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get

    if is_autoscaler_v2():
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
        named = [*status.active_nodes, *status.idle_nodes, *status.pending_nodes, *status.pending_launches]
        return {node.ray_node_type_name for node in named}
    report = (json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}")).get("autoscaler_report") or {}
    return {*report.get("active_nodes", {}), *report.get("pending_launches", {})}


def _in_words(resources: Mapping[str, float]) -> str:
    """`{"CPU": 4, "GPU": 1}` is "4 CPUs and 1 GPU"."""
    words = [_one_in_words(name, amount) for name, amount in resources.items()]
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def _one_in_words(name: str, amount: float) -> str:
    if "memory" in name:
        return f"{size(amount)} of {name.replace('_', ' ')}"
    if name not in ("CPU", "GPU"):
        return f"{amount:g} of '{name}'"
    if not amount:
        return f"no {name}"
    return counted(int(amount), name) if amount == int(amount) else f"{amount:g} {name}s"
