"""From the goal predicates of a task to the skills that reach them, in order."""

from __future__ import annotations

from dataclasses import dataclass

from vla_harness.errors import UserError

from .geometry import Scene
from .motion import Motion
from .skills import is_placed, place


@dataclass(frozen=True)
class Place:
    """Bring an object onto or into something: goals ("on", object, target) and ("in", object, target)."""

    goal: tuple[str, ...]

    def done(self, scene: Scene) -> bool:
        """Say whether the object is where it should be."""
        return is_placed(scene, *self.goal[1:])

    def run(self, scene: Scene, attempt: int) -> Motion:
        """Return the motions of one attempt."""
        return place(scene, *self.goal[1:], attempt)


_SKILLS = {"on": Place, "in": Place}


def plan(scene: Scene) -> list[Place]:
    """Return one skill for each goal predicate of the scene; raises UserError for a predicate without a skill."""
    for predicate in scene["goal"]:
        if predicate[0] not in _SKILLS:
            raise UserError(
                f"The policy 'scripted' has no skill for the goal {predicate}: choose another suite or task."
            )
    return [_SKILLS[predicate[0]](predicate) for predicate in scene["goal"]]
