"""Offline evaluation: the reference's number, every kind of policy, and what the command leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vla_harness.data.test_libero_hdf5 import write as write_hdf5
from tests.vla_harness.groot.goldens import CHECKPOINT, TOKENIZER
from tests.vla_harness.groot.libero_checkpoint import libero_metadata
from tests.vla_harness.openvla.tiny_checkpoint import write_tiny_checkpoint
from vla_harness import load_policy
from vla_harness.data import DatasetWriter, Episode, Feature, Modality, Part, open_dataset
from vla_harness.errors import UserError
from vla_harness.eval.offline import main
from vla_harness.offline import Evaluation, ModalityPredictor, evaluate_trajectory, predictor_of
from vla_harness.policies.groot.assembly import open_groot
from vla_harness.policies.groot.policy import GrootPolicy

GOLDEN = Path(__file__).parents[1] / "data" / "offline" / "golden.npz"
GROOT = {"checkpoint": str(CHECKPOINT), "tokenizer": str(TOKENIZER), "precision": "fp32", "device": "cpu"}
SO100 = {"embodiment": "new_embodiment", "data_config": "so100_dualcam"}
WORDS = "open the drawer"


@pytest.fixture(scope="module")
def so100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden's episode; its policy looks at rows 0 and 16 only, and the golden holds these two frames."""
    path = tmp_path_factory.mktemp("so100") / "data"
    golden = np.load(GOLDEN)
    features = {
        "observation.images.front": Feature("image", (256, 256, 3)),
        "observation.images.wrist": Feature("image", (256, 256, 3)),
        "observation.state": Feature("float64", (6,)),
        "action": Feature("float64", (6,)),
    }

    def parts(column: str) -> dict[str, Part]:
        return {"single_arm": Part(column, 0, 5), "gripper": Part(column, 5, 6)}

    modality = Modality(
        parts("observation.state"),
        parts("action"),
        {"front": "observation.images.front", "wrist": "observation.images.wrist"},
        {"human.task_description": "task_index"},
    )
    with DatasetWriter(path, 30, features, "so100", modality) as writer, writer.episode(WORDS) as episode:
        for row in range(40):
            looked = row % 16 == 0 and row < 32
            frames = {
                f"observation.images.{name}": golden[name][row // 16] if looked else np.zeros((256, 256, 3), np.uint8)
                for name in ("front", "wrist")
            }
            episode.add({**frames, "observation.state": golden["state"][row], "action": golden["action"][row]})
    return path


@pytest.fixture(scope="module")
def libero(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of end-effector actions, all zero but an open gripper."""
    path = tmp_path_factory.mktemp("libero") / "data"
    features = {
        "observation.images.agentview": Feature("image", (16, 16, 3)),
        "observation.state": Feature("float32", (8,)),
        "action": Feature("float32", (7,)),
    }
    image = np.zeros((16, 16, 3), np.uint8)
    with DatasetWriter(path, 20, features, "panda") as writer:
        for length in (8, 6):
            with writer.episode("do nothing") as episode:
                for _ in range(length):
                    action = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)
                    episode.add(
                        {"observation.images.agentview": image, "observation.state": np.zeros(8), "action": action}
                    )
    return path


class WithNoise:
    """GR00T that starts from the golden's noise, call after call."""

    def __init__(self, policy: GrootPolicy, noise: np.ndarray) -> None:
        self._policy, self._noise = policy, iter(noise)
        self.get_modality_config = policy.get_modality_config

    def get_action(self, observations: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        return self._policy.get_action(observations, noise=next(self._noise)[None])


def test_the_error_is_the_references(so100: Path) -> None:
    golden = np.load(GOLDEN)
    policy = load_policy("groot", **GROOT, **SO100)
    assert isinstance(policy, GrootPolicy)
    predictor = ModalityPredictor(WithNoise(policy, golden["noise"]), open_dataset(so100))
    assert predictor.horizon == int(golden["action_horizon"])
    found = evaluate_trajectory(predictor, open_dataset(so100).episode(0), int(golden["steps"]))
    assert found.inference_rows == (0, 16)
    expected = np.concatenate([golden["pred_single_arm"], golden["pred_gripper"]], axis=2).reshape(32, 6)[:30]
    np.testing.assert_allclose(found.prediction, expected, atol=2e-5)
    assert found.mse == pytest.approx(float(golden["mse"]), abs=1e-5)
    assert Evaluation((found,)).mse_per_dimension.mean() == pytest.approx(3.32335, abs=1e-5)
    np.testing.assert_array_equal(found.state, golden["state"][:30])  # the state's parts are named as the action's


class Line:
    """Predicts 4 actions: the row's number and on, half a unit too high."""

    keys: tuple[str, ...] = ("action.action",)
    horizon = 4

    def predict(self, episode: Episode, row: int) -> np.ndarray:
        return np.repeat(np.arange(row, row + 4.0)[:, None] + 0.5, 7, axis=1)


def test_chunks_are_joined_and_cut_at_the_steps_or_the_episodes_end(libero: Path) -> None:
    dataset = open_dataset(libero)
    long = evaluate_trajectory(Line(), dataset.episode(0), 6)
    assert long.inference_rows == (0, 4) and long.prediction[:, 0].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    short = evaluate_trajectory(Line(), dataset.episode(1), 150, horizon=3)
    assert short.inference_rows == (0, 3) and len(short.truth) == 6
    errors = (np.arange(6) + 0.5) ** 2
    assert long.mse_per_dimension[0] == pytest.approx(errors.mean())
    assert long.mse_per_dimension[6] == pytest.approx(((np.arange(6) + 1.5) ** 2).mean())
    assert np.isnan(long.state).all()  # the state has other lengths than the action
    both = Evaluation((long, short))
    assert both.mse == pytest.approx((long.mse + short.mse) / 2)
    with pytest.raises(UserError, match="--horizon is 5, and the policy predicts 4"):
        evaluate_trajectory(Line(), dataset.episode(0), 6, horizon=5)


def test_every_policy_of_the_registry_is_asked_or_refused(libero: Path, so100: Path) -> None:
    dataset = open_dataset(libero)
    still = evaluate_trajectory(predictor_of(load_policy("noop"), dataset), dataset.episode(0), 8)
    assert still.mse == 0.0 and still.inference_rows == tuple(range(8))
    drawn = evaluate_trajectory(predictor_of(load_policy("random"), dataset), dataset.episode(0), 8)
    assert 0.2 < drawn.mse_per_dimension[:6].mean() < 0.5  # a third, that of a uniform draw
    with pytest.raises(UserError, match="reads the simulator's state, which datasets do not hold"):
        predictor_of(load_policy("scripted"), dataset)
    with pytest.raises(UserError, match=r"7 numbers, and the actions of .* have 6"):
        predictor_of(load_policy("noop"), open_dataset(so100))
    with pytest.raises(UserError, match="--cameras names 'top' for 'agentview'"):
        predictor_of(load_policy("noop"), dataset, cameras={"agentview": "top"})


def test_groot_is_asked_as_in_a_rollout_where_the_dataset_has_other_names(tmp_path: Path) -> None:
    """LIBERO's own files do not name the parts as GR00T's data configuration of LIBERO does."""
    parts = open_groot(CHECKPOINT, TOKENIZER, config="libero", precision="fp32", metadata=libero_metadata())
    dataset = open_dataset(write_hdf5(tmp_path / "demonstrations"))
    predictor = predictor_of(GrootPolicy.of(parts), dataset)
    found = evaluate_trajectory(predictor, dataset.episode(0), 6)
    assert found.inference_rows == (0,) and found.names[6] == "action[6]"
    assert set(np.unique(found.prediction[:, 6])) <= {-1.0, 1.0}  # the gripper in robosuite's terms, as recorded


def test_openvla_is_evaluated_on_liberos_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "openvla")
    options = ["--policy", "openvla", "--checkpoint", str(checkpoint), "--precision", "fp32", "--device", "cpu"]
    options += ["--dataset", str(write_hdf5(tmp_path / "demonstrations")), "--trajectories", "1", "--steps", "2"]
    assert main([*options, "--out", str(tmp_path / "out")]) == 2
    assert "give --unnorm-key, one of bridge_orig, libero_spatial" in capsys.readouterr().err
    options += ["--unnorm-key", "libero_spatial", "--policy-option", "center_crop=false"]
    assert main([*options, "--out", str(tmp_path / "out")]) == 0
    content = json.loads((tmp_path / "out/offline.json").read_text())
    (trajectory,) = content["trajectories"]
    assert (trajectory["steps"], trajectory["inferences"]) == (2, 2) and np.isfinite(content["mse"])
    assert content["config"]["provenance"]["unnorm_key"] == "libero_spatial"


def test_the_command_leaves_json_html_and_plots(
    libero: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["--policy", "random", "--dataset", str(libero), "--trajectories", "9", "--steps", "5", "--seed", "3"]
    assert main([*options, "--out", str(out)]) == 0
    content = json.loads((out / "offline.json").read_text())
    assert [one["steps"] for one in content["trajectories"]] == [5, 5]
    assert content["mse"] == pytest.approx(np.mean([one["mse"] for one in content["trajectories"]]))
    assert content["mse"] == pytest.approx(np.mean(list(content["mse_per_dimension"].values())))
    page = (out / "report.html").read_text()
    for one in content["trajectories"]:
        assert (out / one["plot"]).stat().st_size > 10_000 and one["plot"] in page
    told = capsys.readouterr().out
    assert f"MSE {content['mse']:.6g}, un-normalised, mean over 2 episodes" in told
    again = tmp_path / "again"
    assert main([*options, "--out", str(again)]) == 0
    assert json.loads((again / "offline.json").read_text())["mse"] == content["mse"]
    (tmp_path / "report.html").write_text("of a run")
    assert main([*options, "--out", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err and (tmp_path / "report.html").read_text() == "of a run"


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ((), "--dataset"),
        (("--dataset", "/nowhere"), "/nowhere is no dataset"),
        (("--dataset", "DATASET", "--policy", "noop", "--steps", "0"), "--steps is 0: give at least 1"),
        (("--dataset", "DATASET", "--policy", "noop", "--cameras", "front"), "give pairs such as"),
        (("--dataset", "DATASET", "--policy", "noop", "--action-keys", "arm"), "leave it out"),
        (("--dataset", "DATASET", "--policy", "noop", "--embodiment", "gr1"), "has no option 'embodiment'"),
        (("--dataset", "DATASET", "--policy", "noop", "--horizon", "2"), "predicts 1 actions"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code_2(
    options: tuple[str, ...], advice: str, libero: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(libero) if word == "DATASET" else word for word in options]) == 2
    told = capfd.readouterr()
    assert told.err.startswith("error: ") and told.err.count("\n") == 1 and advice in told.err


def test_a_dataset_without_what_the_policy_reads_is_refused(libero: Path) -> None:
    policy = load_policy("groot", **GROOT, **SO100)
    with pytest.raises(UserError, match=r"no 'action.single_arm' \(it has: state.state, action.action"):
        predictor_of(policy, open_dataset(libero))
    with pytest.raises(UserError, match=r"writes no 'action.leg' \(it writes: action.single_arm, action.gripper"):
        predictor_of(policy, open_dataset(libero), keys=["leg"])
