"""From the goal predicates of a task to the skills that reach them, in order."""

from __future__ import annotations

from dataclasses import dataclass

from vla_harness.errors import UserError

from .articulated import operate
from .geometry import Scene
from .handles import joint_of, opening_of
from .latched import Unlatch
from .lifting import Lift
from .motion import Motion
from .predicates import is_in, is_on
from .skills import place


@dataclass(frozen=True)
class Place:
    """Bring an object onto or into another object or a site: the goals ("on", name, target), ("in", name, target)."""

    name: str
    target: str
    inside: bool = False

    def done(self, scene: Scene) -> bool:
        """Say whether the object is where it should be."""
        return (is_in if self.inside else is_on)(scene, self.name, self.target)

    def run(self, scene: Scene, attempt: int) -> Motion:
        """Return the motions of one attempt; ``attempt`` counts from 0."""
        return place(scene, self.name, self.target, self.inside, attempt)


@dataclass(frozen=True)
class Move:
    """Bring the joint of an object or a region past a position.

    goal: metres or radians. way: +1 for at least, -1 for at most. further: how far past it the joint is sent.
    """

    target: str
    goal: float
    way: int
    further: float

    def done(self, scene: Scene) -> bool:
        """Say whether the joint is past its goal."""
        name, joint = joint_of(scene, self.target)
        return bool(self.way * (scene["objects"][name]["joints"][joint]["position"] - self.goal) > 0)

    def run(self, scene: Scene, attempt: int) -> Motion:
        """Return the motions of one attempt."""
        name, joint = joint_of(scene, self.target)
        return operate(scene, name, joint, self.goal + self.way * self.further)


Skill = Place | Move | Lift | Unlatch

_POSITIONS = {
    ("open", "slide"): (-0.14, -1, 0.003),
    ("close", "slide"): (0.0, 1, 0.004),
    ("open", "hinge"): (-1.3, -1, 0.05),
    ("close", "hinge"): (-0.005, 1, 0.004),
    ("turnon", "hinge"): (0.5, 1, 0.1),
    ("turnoff", "hinge"): (-0.005, -1, 0.0),
}
"""Predicate and the joint's kind -> goal, way, further: LIBERO's limits for its cabinets, microwave and stove."""


def plan(scene: Scene) -> list[Skill]:
    """Return the skills that reach all goals of the scene, in order.

    A drawer or door that something still has to go through is opened first; what is to be closed is closed last.
    Raises UserError for a predicate without a skill.
    """
    skills = [_skill(scene, predicate) for predicate in scene["goal"]]
    openings = [
        opening
        for skill in skills
        if isinstance(skill, Place) and skill.inside and not skill.done(scene)
        for opening in [_opened(scene, skill.target)]
        if opening is not None
    ]
    closing = [skill for skill in skills if isinstance(skill, Move) and _closes(scene, skill)]
    return openings + [skill for skill in skills if skill not in closing] + closing


def _skill(scene: Scene, predicate: tuple[str, ...]) -> Skill:
    verb, *names = predicate
    if verb in ("on", "in"):
        return Place(names[0], names[1], inside=verb == "in")
    if verb in ("lift", "unlatch"):
        return Lift(names[0]) if verb == "lift" else Unlatch(names[0])
    if verb not in {known for known, _ in _POSITIONS}:
        raise UserError(
            f"The policy 'scripted' has no skill for the goal {' '.join(predicate)!r}: choose another task."
        )
    return _move(scene, verb, names[0])


def _move(scene: Scene, verb: str, target: str) -> Move:
    name, joint = joint_of(scene, target)
    return Move(target, *_POSITIONS[verb, scene["objects"][name]["joints"][joint]["kind"]])


def _opened(scene: Scene, region: str) -> Move | None:
    """Return what opens the way into ``region``, if something can close it."""
    target = opening_of(scene, region)
    return None if target is None else _move(scene, "open", target)


def _closes(scene: Scene, skill: Move) -> bool:
    return skill == _move(scene, "close", skill.target)
