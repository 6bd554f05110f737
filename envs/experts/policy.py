"""The scripted expert: reads the scene and solves LIBERO tasks with the robot's own action space."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence

import numpy as np

from tformer.values import Fraction, Seed
from vla_harness.errors import UserError
from vla_harness.types import DELTA_EEF_POSE, Observation, Policy, PolicySpec

from .geometry import Scene
from .goals import Place, Skill, plan
from .noise import RecoveryNoise

Memory = Generator[np.ndarray, Scene, None]


class ScriptedPolicy(Policy):
    """The expert: reads the simulator's state instead of images, and knows LIBERO's tasks and some of robosuite's.

    It goes from goal predicates to skills to closed-loop motions. The same scenes give the same actions. An episode's
    memory is the generator that plays it, and reads the scene anew at each step, so it finds back when something else
    was executed.
    """

    spec = PolicySpec(name="scripted", action=DELTA_EEF_POSE, horizon=1, reads_scene=True)

    def __init__(self, noise: Fraction = 0.0, seed: Seed = 0) -> None:
        """Plan nothing yet.

        Args:
            noise: Most that is added to an entry of an executed action (see ``RecoveryNoise``), a share of the
                controller's most, so that demonstrations show recoveries; 0 adds nothing.
            seed: Of the noise.
        """
        self._noise = RecoveryNoise(noise, seed=seed)
        self._episodes: dict[str, Memory] = {}
        self._wanted: dict[str, np.ndarray] = {}

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, 1, 7) float32.

        Raises UserError when an observation has no scene, or its goal asks for something no skill can do.
        """
        for observation in observations:
            self._wanted[observation.episode] = self._act(observation)
        return np.stack([self._noise.disturb(self._wanted[o.episode], o.episode, o.step) for o in observations])[
            :, None
        ]

    def wanted(self, episode: str) -> np.ndarray:
        """Return the expert's last action in ``episode``, (7,) float32, without noise: what a demonstration teaches."""
        return self._wanted[episode]

    def aims(self, scene: Scene) -> np.ndarray:
        """Return where the thing that is handled is and where it is to go, (6,) float32, metres in the world frame."""
        skills = plan(scene)
        skill = next((step for step in skills if not step.done(scene)), skills[-1])
        target = (scene["sites"] | scene["objects"])[skill.target]["position"]
        subject = scene["objects"][skill.name]["position"] if isinstance(skill, Place) else target
        return np.concatenate([subject, target]).astype(np.float32)

    def _act(self, observation: Observation) -> np.ndarray:
        if observation.scene is None:
            raise UserError("The policy 'scripted' reads the simulator's state: run it on a simulated task.")
        memory = self._episodes.get(observation.episode)
        if memory is not None:
            return memory.send(observation.scene)
        memory = solve(observation.scene)
        action = next(memory)
        self._episodes[observation.episode] = memory
        return action

    def forget(self, episode: str) -> None:
        """Drop the memory of ``episode``."""
        self._episodes.pop(episode, None)
        self._wanted.pop(episode, None)


def solve(scene: Scene) -> Memory:
    """Play one episode: work on the first goal that is not reached, again and again; wait when all are."""
    attempts: Counter[Skill] = Counter()
    while True:
        skill = next((step for step in plan(scene) if not step.done(scene)), None)
        if skill is None:
            scene = yield np.array([0, 0, 0, 0, 0, 0, -1], np.float32)
        else:
            scene = yield from skill.run(scene, attempts[skill])
            attempts[skill] += 1
