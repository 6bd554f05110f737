"""From the goal predicates of a task to the skills that reach them, in order."""

from __future__ import annotations

from dataclasses import dataclass

from vla_harness.errors import UserError

from .geometry import Scene
from .motion import Motion
from .skills import is_placed, place


@dataclass(frozen=True)
class Place:
    """Bring an object onto or into another object or a site: the goals ("on", name, target), ("in", name, target)."""

    name: str
    target: str

    def done(self, scene: Scene) -> bool:
        """Say whether the object is where it should be."""
        return is_placed(scene, self.name, self.target)

    def run(self, scene: Scene, attempt: int) -> Motion:
        """Return the motions of one attempt; ``attempt`` counts from 0."""
        return place(scene, self.name, self.target, attempt)


_SKILLS = {"on": Place, "in": Place}


def plan(scene: Scene) -> list[Place]:
    """Return one skill for each goal predicate of the scene; raises UserError for a predicate without a skill."""
    for predicate in scene["goal"]:
        if predicate[0] not in _SKILLS:
            raise UserError(
                f"The policy 'scripted' has no skill for the goal {' '.join(predicate)!r}: choose another task."
            )
    return [_SKILLS[predicate[0]](*predicate[1:]) for predicate in scene["goal"]]
