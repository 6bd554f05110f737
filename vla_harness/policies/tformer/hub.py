"""Putting a trained policy on the hub, with a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...checkpoints.files import Checkpoint
from ...hub import hub_errors
from .checkpoint import CONFIGURATION, PolicyCard

ADVICE = "check the name and `hf auth login`"


def model_card(card: PolicyCard, curve: Sequence[Mapping[str, float]]) -> str:
    """Return the README.md of a checkpoint: what it is, how it was trained, how to run it."""
    training, network = card.training, card.network
    last = ", ".join(f"{name} {value:.4g}" for name, value in curve[-1].items()) if curve else "not recorded"
    tasks = "\n".join(f"- {text}" for text in training.get("instructions", ()))
    datasets = ", ".join(f"{one['name']}" for one in training.get("datasets", ()))
    return f"""---
library_name: vla-harness
pipeline_tag: robotics
tags: [robotics, imitation-learning, {network.head.kind}]
---

# A robot policy from scratch

Reads {", ".join(card.cameras)} at {card.image_size[0]} x {card.image_size[1]} pixels, {", ".join(card.state_keys)} and
an instruction; writes chunks of {network.horizon} actions by a {network.head.kind} head.

    python eval/run_libero.py --suite spatial --policy tformer --checkpoint THIS_REPOSITORY

Trained on {datasets} ({training.get("samples", 0):,} samples, seed {training.get("seed")}) with

    {training.get("command", "")}

At the end of the training: {last}.

## Instructions it has seen

{tasks}
"""


def prepare_repository(repository: str) -> None:
    """Create the repository, or check that it can be written to, before anything is trained for it.

    Raises:
        UserError: the hub refuses the name or the token, or cannot be reached.
    """
    from huggingface_hub import HfApi

    with hub_errors(f"The hub did not take {repository}", ADVICE):
        HfApi().create_repo(repository, exist_ok=True)


def push_policy(folder: Path, repository: str, curve: Sequence[Mapping[str, float]]) -> str:
    """Upload the checkpoint in ``folder`` with its card and return the address; UserError if the hub refuses."""
    from huggingface_hub import HfApi

    card = PolicyCard.from_json(Checkpoint(str(folder), folder).json(CONFIGURATION), str(folder))
    (folder / "README.md").write_text(model_card(card, curve), encoding="utf-8")
    with hub_errors(f"The hub did not take {repository}", ADVICE):
        address = HfApi().create_repo(repository, exist_ok=True)
        HfApi().upload_folder(repo_id=repository, folder_path=folder, commit_message="Add the trained policy")
    return str(address)
