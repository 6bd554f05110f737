"""The scripted expert: its geometry, its plans, and episodes that it solves in the simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest

from vla_harness import Observation, load_policy
from vla_harness.envs.experts import geometry, grasps, handles, motion
from vla_harness.envs.experts.goals import Move, Place, plan
from vla_harness.envs.experts.places import resting_place
from vla_harness.envs.experts.policy import ScriptedPolicy
from vla_harness.envs.experts.predicates import is_on
from vla_harness.envs.libero.environment import LiberoEnv
from vla_harness.errors import UserError
from vla_harness.protocols import SETTLE_ACTION, protocol_card

BOWL, PLATE = "akita_black_bowl_1", "plate_1"
BOWL_NEXT_TO_RAMEKIN, BOWL_IN_DRAWER = 1, 4
BOWL_INTO_TOP_DRAWER, PLATE_PUSHED, KNOB = 3, 5, 7
BOWL_INTO_BOTTOM_DRAWER, MUG_AND_PUDDING, TWO_POTS, MUG_INTO_MICROWAVE = 3, 6, 8, 9

Start = Callable[..., LiberoEnv]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Start an episode of LIBERO as the protocol does; one environment is kept for each task."""
    made: dict[tuple[str, int], LiberoEnv] = {}

    def start(suite: str, task: int, initial_state: int = 0) -> LiberoEnv:
        if (suite, task) not in made:
            environment = gymnasium.make(f"vla_harness.envs:libero/{suite}-v0", task=task, observations="on_request")
            assert isinstance(environment.unwrapped, LiberoEnv)
            made[suite, task] = environment.unwrapped
        made[suite, task].reset(seed=0, options={"initial_state": initial_state})
        for _ in range(10):
            made[suite, task].step(np.array(SETTLE_ACTION, np.float32))
        return made[suite, task]

    yield start
    for environment in made.values():
        environment.close()


def observation(scene: Mapping[str, Any] | None, episode: str = "one", step: int = 0) -> Observation:
    return Observation({}, np.zeros(0, np.float32), "", episode, step, scene)


def play(task: LiberoEnv, policy: ScriptedPolicy, limit: int) -> tuple[bool, np.ndarray]:
    """Return success and the actions, (steps, 7)."""
    actions = []
    for step in range(limit):
        actions.append(policy.act([observation(task.scene(), step=step)])[0, 0])
        if task.step(actions[-1])[4]["success"]:
            return True, np.array(actions)
    return False, np.array(actions)


@pytest.mark.parametrize(
    ("suite", "task", "initial_state"),
    [
        ("spatial", BOWL_IN_DRAWER, 1),
        ("object", 0, 0),
        ("goal", BOWL_INTO_TOP_DRAWER, 1),
        ("goal", PLATE_PUSHED, 0),
        ("goal", KNOB, 0),
        ("10", MUG_AND_PUDDING, 0),
        ("10", MUG_INTO_MICROWAVE, 0),
    ],
)
def test_solves_tasks_with_actions_in_range(start: Start, suite: str, task: int, initial_state: int) -> None:
    success, actions = play(
        start(suite, task, initial_state), ScriptedPolicy(), protocol_card("openvla").max_steps[suite]
    )
    assert success
    assert actions.dtype == np.float32
    assert np.abs(actions).max() <= 1.0


def test_is_deterministic_and_forgets(start: Start) -> None:
    """The same scenes give the same actions, in any batch; a forgotten episode begins anew."""
    task, policy = start("spatial", BOWL_NEXT_TO_RAMEKIN), ScriptedPolicy()
    scenes, alone = [], []
    for step in range(40):
        scenes.append(task.scene())
        alone.append(policy.act([observation(scenes[-1], step=step)])[0])
        task.step(alone[-1][0])
    batched = [policy.act([observation(scene, "two"), observation(scene, "three")]) for scene in scenes]
    for actions, pair in zip(alone, batched, strict=True):
        np.testing.assert_array_equal(pair, [actions, actions])

    assert (policy.act([observation(scenes[0], "two")])[0] != alone[0]).any()
    policy.forget("two")
    np.testing.assert_array_equal(policy.act([observation(scenes[0], "two")])[0], alone[0])


def test_is_in_the_registry_and_says_that_it_reads_the_scene() -> None:
    policy = load_policy("scripted")
    assert isinstance(policy, ScriptedPolicy)
    assert (policy.spec.reads_scene, policy.spec.cameras, policy.spec.horizon) == (True, (), 1)
    with pytest.raises(UserError, match="reads the simulator's state"):
        policy.act([observation(None)])


def test_plans_one_skill_for_each_goal(start: Start) -> None:
    scene = dict(start("spatial", BOWL_NEXT_TO_RAMEKIN).scene())
    assert plan(scene) == [Place(BOWL, PLATE)]
    scene["goal"] = (("on", BOWL, "flat_stove_1_cook_region"), ("on", "cookies_1", PLATE), ("turnon", "flat_stove_1"))
    assert [type(skill) for skill in plan(scene)] == [Place, Place, Move]
    scene["goal"] = (("on", BOWL, PLATE), ("juggle", BOWL))
    with pytest.raises(UserError, match="no skill for the goal 'juggle akita_black_bowl_1'"):
        plan(scene)


def test_opens_what_is_in_the_way_and_closes_it_last(start: Start) -> None:
    scene = deepcopy(dict(start("10", BOWL_INTO_BOTTOM_DRAWER).scene()))
    drawer = "white_cabinet_1_bottom_region"
    assert scene["goal"] == (("close", drawer), ("in", BOWL, drawer))
    opening, placing, closing = plan(scene)
    assert isinstance(opening, Move)
    assert isinstance(closing, Move)
    assert placing == Place(BOWL, drawer, inside=True)
    assert opening.done(scene)
    assert not closing.done(scene)

    joint = scene["objects"]["white_cabinet_1"]["joints"]["white_cabinet_1_bottom_level"]
    joint["position"] = 0.004
    assert plan(scene) == [opening, placing, closing]
    assert closing.done(scene)
    assert not opening.done(scene)

    scene["objects"][BOWL]["position"] = scene["sites"][drawer]["position"]
    assert plan(scene) == [placing, closing]  # the bowl is inside: nothing needs to be opened


def test_an_object_is_placed_when_it_stands_where_it_would_rest(start: Start) -> None:
    scene = deepcopy(dict(start("spatial", BOWL_NEXT_TO_RAMEKIN).scene()))
    assert not is_on(scene, BOWL, PLATE)
    goal = resting_place(scene, BOWL, PLATE)
    plate = scene["objects"][PLATE]["position"]
    np.testing.assert_array_equal(goal[:2], plate[:2])
    assert 0 < goal[2] - plate[2] < 0.02
    bowl = scene["objects"][BOWL]
    bowl["boxes"]["center"] += goal - bowl["position"]
    bowl["position"] = goal
    assert is_on(scene, BOWL, PLATE)


def test_two_objects_on_one_region_have_room_beside_each_other(start: Start) -> None:
    scene = start("10", TWO_POTS).scene()
    places = [resting_place(scene, name, "flat_stove_1_cook_region") for name in ("moka_pot_1", "moka_pot_2")]
    stove = scene["sites"]["flat_stove_1_cook_region"]
    assert 0.085 < np.abs(places[0] - places[1])[:2].max() < 0.1
    for place in places:
        assert (np.abs(place - stove["position"])[:2] < stove["half_size"][:2] - 0.02).all()


def test_grips_the_wall_of_a_bowl_with_room_for_the_fingers(start: Start) -> None:
    scene = start("spatial", BOWL_NEXT_TO_RAMEKIN).scene()
    best = grasps.candidates(scene, BOWL, resting_place(scene, BOWL, PLATE))[0]
    bowl = scene["objects"][BOWL]
    from_middle = best.position[:2] - bowl["position"][:2]
    assert 0.045 < np.linalg.norm(from_middle) < 0.053
    along_fingers = best.rotation[:2, 0]
    assert abs(from_middle @ along_fingers) / np.linalg.norm(from_middle) > 0.99
    points = best.position + geometry.gripper_points(best.width) @ best.rotation.T
    assert geometry.clearance(geometry.boxes(scene, ignored=(BOWL,)), points) > 0.005


def test_grips_a_mug_by_its_wall_but_not_where_its_handle_is(start: Start) -> None:
    scene = start("10", MUG_AND_PUDDING).scene()
    mug = scene["objects"]["porcelain_mug_1"]
    handle = grasps.outer_handle(mug)
    ways = grasps.candidates(scene, "porcelain_mug_1", resting_place(scene, "porcelain_mug_1", PLATE))
    best = ways[0].position
    assert 0.05 < np.linalg.norm((handle - mug["position"])[:2]) < 0.08
    assert np.linalg.norm((best - handle)[:2]) > 0.05
    assert best[2] > handle[2] + 0.02


def test_a_grip_moves_with_its_joint(start: Start) -> None:
    """A drawer's handle along the joint's axis, a door's on a circle about its hinge; the fingers' side never flips."""
    scene = start("10", BOWL_INTO_BOTTOM_DRAWER).scene()
    name, joint = handles.joint_of(scene, "white_cabinet_1_bottom_region")
    grip = handles.grip_for(scene, name, joint, increase=False)
    (shut, rotation), (pulled, same) = (handles.grip_pose(scene, name, joint, grip, at) for at in (0.0, -0.1))
    np.testing.assert_allclose(pulled - shut, -0.1 * scene["objects"][name]["joints"][joint]["axis"], atol=1e-9)
    np.testing.assert_array_equal(rotation, same)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)

    scene = start("10", MUG_INTO_MICROWAVE).scene()
    name, joint = handles.joint_of(scene, "microwave_1")
    anchor = scene["objects"][name]["joints"][joint]["anchor"]
    door = handles.grip_for(scene, name, joint, increase=True)
    with pytest.raises(UserError, match="no handle that moves 'microwave_1_microjoint' back"):
        handles.grip_for(scene, name, joint, increase=False)
    with pytest.raises(UserError, match="nothing that moves in 'white_yellow_mug_1'"):
        handles.joint_of(scene, "white_yellow_mug_1")
    poses = [handles.grip_pose(scene, name, joint, door, at) for at in (-1.5, -1.0, -0.5, 0.0)]
    radii = [np.linalg.norm((position - anchor)[:2]) for position, _ in poses]
    np.testing.assert_allclose(radii, radii[0])
    turns = [rotation[:, 0] @ following[:, 0] for (_, rotation), (_, following) in pairwise(poses)]
    np.testing.assert_allclose(turns, np.cos(0.5), atol=1e-6)


def test_drags_a_bowl_from_under_the_cabinets_top(start: Start) -> None:
    scene = deepcopy(dict(start("spatial", BOWL_IN_DRAWER, 1).scene()))
    assert not geometry.way_out(scene, PLATE).any()
    shift = geometry.way_out(scene, BOWL)
    outward = -scene["objects"]["wooden_cabinet_1"]["joints"]["wooden_cabinet_1_top_level"]["axis"]
    assert 0 < np.linalg.norm(shift) < 0.04
    assert shift @ outward > 0.7 * np.linalg.norm(shift)
    scene["objects"][BOWL]["boxes"]["center"] += shift
    assert not geometry.way_out(scene, BOWL).any()


def test_the_wrists_bend_is_that_of_the_sixth_joint(start: Start) -> None:
    """The two-link model of the arm against the simulator's joint angle, hand straight down at its starting place."""
    task = start("spatial", BOWL_NEXT_TO_RAMEKIN)
    hand = task.scene()["end_effector"]
    wrist = hand["position"] + hand["rotation"] @ geometry._WRIST - task.scene()["robot_base"] - geometry._SHOULDER
    lean = np.arctan2(hand["rotation"][0, 2], -hand["rotation"][2, 2])
    bend = geometry._wrist_bend(float(np.linalg.norm(wrist[:2])), wrist[2], lean)
    assert bend == pytest.approx(np.pi - task.data.joint("robot0_joint6").qpos[0], abs=0.01)


@pytest.mark.parametrize(("forward", "leans"), [(0.25, "in"), (0.6, "not"), (0.8, "out")])
def test_leans_out_far_away_and_in_close_by(forward: float, leans: str) -> None:
    scene = {"robot_base": np.array([-0.66, 0.0, 0.91])}
    rotation = geometry.leaning(scene, 0.0, np.array([-0.66 + forward, 0.0, 0.95]))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.sign(round(rotation[0, 2], 9)) == {"in": -1, "not": 0, "out": 1}[leans]
    np.testing.assert_allclose(rotation[:, 0], [0, 1, 0], atol=1e-12)  # the fingers stay level


def test_fingers_stop_at_the_width_asked_for() -> None:
    still = {"gripper_qpos": np.array([0.02, -0.02]), "gripper_qvel": np.zeros(2)}
    assert [motion.fingers(still, width) for width in (0.08, 0.04, 0.0)] == [-1.0, 0.0, 1.0]
    opening = {**still, "gripper_qvel": np.array([0.1, -0.1])}
    assert motion.fingers(opening, 0.06) == 0.0
    assert (motion.fingers(still, motion.OPEN), motion.fingers(still, motion.CLOSED)) == (-1.0, 1.0)


def test_actions_are_clipped_without_bending_the_way() -> None:
    hand = {"position": np.zeros(3), "rotation": geometry.facing_down(0.0)}
    act = motion.action({"end_effector": hand}, np.array([1.0, 0.5, 0.0]), geometry.facing_down(3.0), -1.0, speed=0.4)
    np.testing.assert_allclose(act, [0.4, 0.2, 0, 0, 0, 1, -1], atol=1e-6)
