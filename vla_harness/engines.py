"""The engines by name: who plays a run, on this machine or on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from .errors import UserError
from .registry import POLICIES, load_policy, policy_options
from .results.wording import plural
from .rollout.crew import Crew
from .rollout.local import LocalCrew

Engine = Literal["local", "ray"]


def start_crew(engine: Engine, replicas: int | None, policy: str, **options: Any) -> Crew:
    """Load the policy here, or with "ray" on the cluster, where each copy loads it for itself.

    replicas: copies of the policy; None for one on each GPU of the cluster, or one. options: the policy's own.
    Raises UserError as ``load_policy`` does, and if there is no cluster, no Ray, or no place for the copies.
    """
    if engine == "local":
        if replicas is not None:
            raise UserError("--replicas is for --engine ray: on one machine the policy is there once.")
        return LocalCrew(load_policy(policy, **options))
    try:
        from .rollout.ray_crew import PolicyRecipe, RayCrew
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UserError("--engine ray needs Ray: run `pip install 'vla-harness[ray]'`.") from None
    if (place := options.get("checkpoint")) and Path(place).exists():
        options["checkpoint"] = str(Path(place).absolute())  # actors have a working directory of their own
    use_gpus = "device" in policy_options(policy) and options.get("device") != "cpu"
    return RayCrew(PolicyRecipe(policy, POLICIES[policy], options), replicas, use_gpus)


def cluster_words(crew: Crew) -> str:
    """Return " on a Ray cluster of 2 nodes, 4 x the policy", or nothing for this machine."""
    if "ray" not in crew.provenance:
        return ""
    return f" on a Ray cluster of {plural(crew.provenance['ray']['nodes'], 'node')}, {crew.copies} x the policy"
