"""From demonstrations of LIBERO, public or our own, to a GR00T that plays what it has learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vla_harness.data import public
from tests.vla_harness.data.test_libero_hdf5 import write as write_hdf5
from tests.vla_harness.train.test_groot import options
from vla_harness.conventions import Adapter
from vla_harness.data import Dataset, ModalityReader, open_dataset
from vla_harness.data.conventions import ConventionName
from vla_harness.errors import UserError
from vla_harness.policies.groot.embodiments import data_config
from vla_harness.registry import load_policy
from vla_harness.train.groot import finetune, main
from vla_harness.train.groot_data import dataset_for, reading_note
from vla_harness.types import DELTA_EEF_POSE, EnvironmentSpec, Observation

LIBERO = data_config("libero")
HAND_MADE = {
    "state": {
        key: {"start": i, "end": i + 1 + (key == "gripper"), "original_key": "STATE"}
        for i, key in enumerate(("x", "y", "z", "roll", "pitch", "yaw", "gripper"))
    },
    "action": {
        key: {"start": i, "end": i + 1, "original_key": "ACTION"}
        for i, key in enumerate(("x", "y", "z", "roll", "pitch", "yaw", "gripper"))
    },
    "video": {"image": {"original_key": "FRONT"}, "wrist_image": {"original_key": "WRIST"}},
    "annotation": {"human.action.task_description": {"original_key": "task_index"}},
}


def write_map(folder: Path, layout: str) -> None:
    """Write the map by which NVIDIA's data configuration reads the layout's columns as they are stored."""
    text = json.dumps(HAND_MADE)
    for name, column in zip(("FRONT", "WRIST", "STATE", "ACTION"), public.LAYOUTS[layout][0], strict=True):
        text = text.replace(name, column)
    (folder / "meta/modality.json").write_text(text)


def window(dataset: Dataset, row: int) -> dict[str, Any]:
    keys = [key for key in dataset.modality.keys if not key.startswith("annotation.")]
    return ModalityReader(dataset).window(dataset.episode(1), row, {key: (0,) for key in keys})


@pytest.mark.parametrize("layout", ["own", "openpi", "lerobot", "openx"])
def test_every_layout_is_learned_as_the_configuration_states_it(layout: str, tmp_path: Path) -> None:
    convention: Any = None if layout == "own" else layout
    opened = open_dataset(public.write(tmp_path / layout, layout), convention)
    dataset = dataset_for(opened, LIBERO)
    state, actions = public.numbers(1)
    seen = window(dataset, 20)
    expected = public.frames(1)[20, :, :, ::-1]  # mirrored
    np.testing.assert_array_equal(seen["video.image"][0], expected[0])
    np.testing.assert_array_equal(seen["video.wrist_image"][0], expected[1])
    names = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
    np.testing.assert_allclose(np.concatenate([seen[f"state.{key}"][0] for key in names]), state[20])
    learned = np.concatenate([seen[f"action.{key}"][0] for key in names])
    np.testing.assert_allclose(learned[:6], actions[20, :6])
    assert (actions[20, 6], learned[6]) == (1, 0)  # closed, in the harness's values and in the configuration's
    assert dataset.statistics["action"]["max"][6] == 1 and dataset.statistics["action"]["min"][6] == 0
    # Beyond the end the last action goes on, as with NVIDIA's map: zeros would close the gripper.
    after = ModalityReader(dataset).window(dataset.episode(1), 23, {"action.gripper": range(3), "action.x": range(3)})
    assert after["action.gripper"].ravel().tolist() == [0, 0, 0] and np.ptp(after["action.x"]) == 0
    assert "mirrored" in reading_note(dataset, LIBERO) and "1 open and 0 closed" in reading_note(dataset, LIBERO)


def test_hdf5_demonstrations_are_learned_too(tmp_path: Path) -> None:
    opened = open_dataset(write_hdf5(tmp_path / "demos"))
    with pytest.raises(UserError, match=r"gripper's entry .* not from -1 \(open\) to 1 \(closed\)"):
        dataset_for(opened, LIBERO)  # this toy's actions are counters


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        ("own", r"names the parts of libero as they are stored, frames upright .* mirrored frames, 1 and 0: take"),
        ("openpi", r"goes from -1 to 1 \(read as .* libero .*\), not from 1 \(open\) to 0 \(closed\)"),
    ],
)
def test_a_hand_made_map_that_would_mirror_frames_or_reverse_the_gripper_is_refused(
    layout: str, sentence: str, tmp_path: Path
) -> None:
    folder = public.write(tmp_path / layout, layout)
    write_map(folder, layout)
    with pytest.raises(UserError, match=sentence):
        dataset_for(open_dataset(folder), LIBERO)


def test_a_map_that_fits_is_read_as_it_is_stored(tmp_path: Path) -> None:
    folder = public.write(tmp_path / "set", "openx")
    write_map(folder, "openx")
    dataset = dataset_for(open_dataset(folder), LIBERO)
    seen = window(dataset, 20)
    np.testing.assert_array_equal(seen["video.image"][0], public.frames(1)[20, 0, :, ::-1])
    assert seen["action.gripper"].item() == 0  # closed
    assert reading_note(dataset, LIBERO).startswith("as stored: frames mirrored, gripper 1 open and 0 closed")


def test_reversed_fingers_are_refused_by_what_the_configuration_states(tmp_path: Path) -> None:
    folder = public.write(tmp_path / "set", "openx")
    write_map(folder, "openx")
    mirrored = data_config("libero")
    assert mirrored.robot is not None
    swapped = replace(mirrored.robot.action, gripper_open=0.0, gripper_closed=1.0)
    config = replace(mirrored, robot=replace(mirrored.robot, action=swapped))
    with pytest.raises(UserError, match=r"The fingers of .* open where its actions close them \(read as"):
        dataset_for(open_dataset(folder), config)


def test_stored_frames_are_turned_where_their_orientation_is_given(tmp_path: Path) -> None:
    folder = public.write(tmp_path / "set", "openx")
    write_map(folder, "openx")
    dataset = dataset_for(open_dataset(folder, image_orientation="upright"), LIBERO)
    stored = public.frames(1)[20, 0, :, ::-1]
    np.testing.assert_array_equal(window(dataset, 20)["video.image"][0], stored[:, ::-1])


def test_missing_parts_are_refused_with_the_convention_that_fits(tmp_path: Path) -> None:
    folder = public.write(tmp_path / "set", "lerobot")
    with pytest.raises(UserError, match=r"names no video\.wrist_image, state\.x, .*give --convention lerobot"):
        dataset_for(open_dataset(folder), LIBERO)
    with pytest.raises(UserError, match=r"names no video\.front, .*name its parts in meta/modality\.json"):
        dataset_for(open_dataset(folder), data_config("so100_dualcam"))


def test_configurations_without_an_environment_read_as_it_is_stored(v21_dataset: Dataset) -> None:
    config = replace(data_config("so100"), video=("front",), state=("arm", "hand"), action=("arm", "hand"))
    assert dataset_for(v21_dataset, config) is v21_dataset and reading_note(v21_dataset, config) == ""


@pytest.fixture(scope="module")
def v21_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    from tests.vla_harness.data import recorded

    return open_dataset(recorded.record(tmp_path_factory.mktemp("toy") / "v21"))


@pytest.mark.parametrize("layout", ["own", "openpi"])
def test_what_was_learned_is_what_is_played(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Train on a public set or our own, load the export, and look at what it sees and does in the harness."""
    convention: ConventionName | None = None if layout == "own" else "openpi"
    source = public.write(tmp_path / layout, layout)
    settings = options(
        tmp_path / "out", dataset=source, convention=convention, embodiment="new_embodiment", data_config="libero",
        batch_size=2, steps_per_epoch=2, epochs=1, evaluate_episodes=1, evaluate_steps=8,
    )  # fmt: skip
    export = finetune(settings)
    assert "frames turned mirrored, gripper 1 open and 0 closed (libero)" in capsys.readouterr().out
    policy: Any = load_policy("groot", checkpoint=str(export), precision="fp32", device="cpu")
    learned = dataset_for(open_dataset(source, convention), LIBERO)
    state, _ = public.numbers(1)
    upright = public.frames(1)[20]
    observation = Observation({"agentview": upright[0], "wrist": upright[1]}, state[20], public.WORDS, "episode", 0)
    played, trained = policy._modalities(observation), window(learned, 20)
    for key in (key for key in played if not key.startswith("annotation.")):
        np.testing.assert_array_equal(np.reshape(played[key], np.shape(trained[key])), trained[key])
    environment = EnvironmentSpec(
        ("agentview", "wrist"), {"eef_pos": 3, "eef_axis_angle": 3, "gripper_qpos": 2}, DELTA_EEF_POSE, 20
    )
    adapter = Adapter(environment, policy.spec, "LIBERO")
    closed = np.array([[*np.zeros(6), trained["action.gripper"].item()]])
    assert adapter.actions(closed)[0, 6] == 1  # what closed in the data closes in the environment
    assert adapter.actions(policy.act([observation])[0]).shape == (16, 7)


def test_the_command_takes_the_reading_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert "--convention" in told and "--image-orientation" in told
