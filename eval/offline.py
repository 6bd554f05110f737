"""Compare a policy's actions with recorded ones: ``python eval/offline.py --policy groot --dataset DIR``."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys
    from pathlib import Path

    if not __package__:  # a file of a checkout, which need not be installed
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.eval.offline"))

import sys
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from tqdm import tqdm
from tyro.conf import arg

from tformer.values import PositiveInt, Seed
from vla_harness.command import DONE, parse_options, run_command
from vla_harness.data.opening import ReadingOptions, open_dataset
from vla_harness.data.validation import require_valid
from vla_harness.errors import UserError
from vla_harness.policy_flags import OWN, PolicyFlags
from vla_harness.printing import printable
from vla_harness.registry import load_policy

POLICY_FLAGS = ("embodiment", "data_config", "tokenizer", "metadata", "seed")
"""Flags of this command alone for options of the policy."""


@dataclass(frozen=True, kw_only=True)
class Offline(PolicyFlags, ReadingOptions):
    """Compare a policy's actions with those of recorded episodes: mean squared error, plots, JSON and HTML.

    The policy looks at the recorded observation every --horizon steps; its actions are compared in the dataset's units.
    """

    dataset: Annotated[Path, arg(metavar="DATASET")]
    """Folder of a LeRobot dataset, LIBERO's .hdf5 file or a folder of these, or one of these on the hub: ORG/NAME or
    ORG/NAME/FOLDER."""

    embodiment: Annotated[str | None, arg(metavar="TAG", help_behavior_hint=OWN)] = None
    """groot: the embodiment, such as new_embodiment or gr1."""

    data_config: Annotated[str | None, arg(metavar="NAME|FILE", help_behavior_hint=OWN)] = None
    """groot: the data configuration, such as so100_dualcam, or a .toml file."""

    tokenizer: Annotated[str | None, arg(metavar="DIR", help_behavior_hint=OWN)] = None
    """groot: where the Eagle tokenizer's files are."""

    metadata: Annotated[str | None, arg(metavar="FILE", help_behavior_hint=OWN)] = None
    """groot: statistics to use instead of the checkpoint's: a metadata.json."""

    trajectories: Annotated[PositiveInt, arg(metavar="N")] = 5
    """Episodes to evaluate, the dataset's first ones."""

    steps: Annotated[PositiveInt, arg(metavar="N")] = 150
    """Most steps of each episode, from its start."""

    horizon: Annotated[PositiveInt | None, arg(metavar="N", help_behavior_hint="(default: all)")] = None
    """Actions used of each prediction."""

    action_keys: Annotated[str | None, arg(metavar="K,K", help_behavior_hint="(default: all)")] = None
    """groot: parts of the action to compare, with commas between: right_arm,left_arm."""

    cameras: Annotated[str | None, arg(metavar="A=B,A=B", help_behavior_hint="(default: the same names)")] = None
    """The policy's camera names, where the dataset has others: agentview=image,wrist=wrist_image."""

    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: runs/offline-POLICY-DATE-TIME)")] = (
        None
    )
    """Folder for the results."""

    seed: Annotated[Seed | None, arg(metavar="N", help_behavior_hint=OWN)] = None
    """Seed of the policy's random draws."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    return run_command(lambda: _evaluate(parse_options(Offline, arguments, "offline.py")))


def _evaluate(options: Offline) -> int:
    from vla_harness.offline import Evaluation, check_report_folder, evaluate_trajectory, predictor_of, write_report

    out = options.out or Path("runs") / f"offline-{options.policy}-{datetime.now():%Y%m%d-%H%M%S}"
    check_report_folder(out)
    dataset = open_dataset(options.dataset, options.convention, options.image_orientation, options.shift_observations)
    count = min(options.trajectories, len(dataset.episodes))
    require_valid(dataset, episodes=count)
    for notice in dataset.notices:
        print(f"note       {notice}")
    if not dataset.has_instructions:
        print(f"note       {dataset.path} has no instructions: the policy is told nothing")
    keys = options.action_keys.split(",") if options.action_keys else None
    cameras = _pairs(options.cameras) if options.cameras else None
    policy = load_policy(options.policy, **_policy_arguments(options))
    predictor = predictor_of(policy, dataset, keys, cameras)
    print(f"policy     {options.policy}, {predictor.horizon} actions a prediction")
    print(f"dataset    {dataset.path}: {count} of {len(dataset.episodes)} episodes, at most {options.steps} steps")
    evaluated = []
    for position in tqdm(range(count), unit="episode", disable=None):
        one = evaluate_trajectory(predictor, dataset.episode(position), options.steps, options.horizon)
        evaluated.append(one)
        tqdm.write(f"episode {one.episode:>4}  MSE {one.mse:.6g} over {len(one.truth)} steps")
    evaluation = Evaluation(tuple(evaluated))
    config = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()}
    write_report(evaluation, config | {"provenance": dict(policy.provenance)}, out)
    for name, value in zip(evaluation.trajectories[0].names, evaluation.mse_per_dimension, strict=True):
        print(f"  {printable(name):<24} {value:.6g}")
    over = f"{count} episode{'s' if count > 1 else ''}"
    print(f"MSE {evaluation.mse:.6g}, un-normalised, mean over {over}\n\nReport: {out / 'report.html'}")
    return DONE


def _policy_arguments(options: Offline) -> dict[str, Any]:
    arguments = options.policy_arguments()
    for name in POLICY_FLAGS:
        if (value := getattr(options, name)) is not None:
            if name in arguments:
                raise UserError(f"{name} is given by --{name.replace('_', '-')} and by --policy-option: give it once.")
            arguments[name] = value
    return arguments


def _pairs(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(ours and theirs for ours, _, theirs in pairs):
        raise UserError(f"--cameras is {text!r}: give pairs such as agentview=image,wrist=wrist_image.")
    return {ours: theirs for ours, _, theirs in pairs}
