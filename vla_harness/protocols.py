"""Evaluation protocols as data: what published numbers were measured under, and what a run of ours states.

Sources: openvla/openvla ``run_libero_eval.py``, moojink/openvla-oft, Physical-Intelligence/openpi ``examples/libero``,
huggingface/lerobot ``envs/libero.py``, NVIDIA/Isaac-GR00T N1.5 ``examples/Libero``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import UserError
from .types import PolicySpec

SETTLE_ACTION = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
OWN_IMAGE_PATH = "the policy's own"
_OPENVLA_STEPS = {"spatial": 220, "object": 280, "goal": 300, "10": 520, "90": 400}


@dataclass(frozen=True)
class Protocol:
    """The protocol card of a run.

    trials: episodes per task; episode i starts from the task's stored initial state i.
    max_steps: suite -> most environment steps after the settle phase; the episode is a failure when they are used up.
    settle_steps, settle_action: actions sent before the policy sees anything, so that objects come to rest.
    environment_seed: the seed every episode's environment is reset with; None means the episode's own number.
    image_size: pixels (height, width) frames are rendered at unless the policy's spec wants another size.
    image_path: what the policy that the protocol was published with does to a frame before the network, in words; what
        a run's policy does is in its spec.
    actions_per_inference: actions executed of each chunk; None means all that the policy returns.
    """

    name: str
    trials: int
    max_steps: Mapping[str, int]
    image_path: str
    actions_per_inference: int | None
    environment_seed: int | None = 0
    settle_steps: int = 10
    settle_action: tuple[float, ...] = SETTLE_ACTION
    image_size: tuple[int, int] = (256, 256)
    source: str = field(default="")


PROTOCOLS = {
    card.name: card
    for card in (
        Protocol(
            "openvla",
            trials=50,
            max_steps=_OPENVLA_STEPS,
            image_path="mirrored (raw rotated by 180 degrees), JPEG 95, lanczos3 to 224, centre crop of area 0.9",
            actions_per_inference=1,
            source="openvla/openvla experiments/robot/libero/run_libero_eval.py",
        ),
        Protocol(
            "openvla-oft",
            trials=50,
            max_steps=_OPENVLA_STEPS,
            image_path="as openvla, agentview and wrist, with 8-D proprioception",
            actions_per_inference=8,
            source="moojink/openvla-oft experiments/robot/libero/run_libero_eval.py",
        ),
        Protocol(
            "openpi",
            trials=50,
            max_steps=_OPENVLA_STEPS,
            environment_seed=7,
            image_path="mirrored (raw rotated by 180 degrees), resized with padding to 224",
            actions_per_inference=5,
            source="Physical-Intelligence/openpi examples/libero/main.py",
        ),
        Protocol(
            "lerobot",
            trials=10,
            max_steps={"spatial": 280, "object": 280, "goal": 300, "10": 520, "90": 400},
            environment_seed=None,
            image_path="raw frames",
            actions_per_inference=None,
            source="huggingface/lerobot src/lerobot/envs/libero.py",
        ),
        Protocol(
            "groot",
            trials=5,
            max_steps={"spatial": 220, "object": 280, "goal": 600, "10": 1000, "90": 400},
            image_path="mirrored (raw rotated by 180 degrees), 256",
            actions_per_inference=1,
            source="NVIDIA/Isaac-GR00T N1.5 examples/Libero",
        ),
        Protocol(
            "vla-harness",
            trials=50,
            max_steps=_OPENVLA_STEPS,
            image_path=OWN_IMAGE_PATH,
            actions_per_inference=None,
            source="openvla's trials and steps; each policy plays as many actions of a chunk as it says itself",
        ),
        Protocol(
            "robosuite",
            trials=50,
            max_steps={"single-arm": 500, "two-arm": 500},
            settle_steps=0,
            settle_action=(),
            image_path=OWN_IMAGE_PATH,
            actions_per_inference=None,
            source="ARISE-Initiative/robosuite-benchmark: horizon 500 at 20 Hz for every task",
        ),
    )
}


def default_protocol(spec: PolicySpec) -> str:
    """Return the protocol of LIBERO that a policy is evaluated under unless the user names another.

    That is the one that its spec states, as every policy with a published evaluation does. For others it is openvla's,
    the most used one, which executes one action of each inference, or "vla-harness", the same one but with all actions
    that the policy returns, if it returns several.
    """
    return spec.protocol or ("openvla" if spec.horizon == 1 else "vla-harness")


def chunk_text(horizon: int, executed: int | None) -> str:
    """Return how much of each inference is executed, as "1 of the policy's 16"."""
    played = horizon if executed is None else min(executed, horizon)
    return "1" if horizon == 1 else f"{'all' if played == horizon else played} of the policy's {horizon}"


def protocol_card(name: str) -> Protocol:
    """Return the protocol ``name``; raises UserError that lists the known ones."""
    if name not in PROTOCOLS:
        raise UserError(f"There is no protocol {name!r}: choose one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
