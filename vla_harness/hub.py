"""Fetches files from the Hugging Face hub, for checkpoints and datasets alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from .errors import UserError


def fetch_snapshot(
    name: str,
    kind: Literal["model", "dataset"],
    files: Sequence[str],
    revision: str | None = None,
    without: Sequence[str] = (),
    refusal: type[UserError] = UserError,
) -> Path:
    """Return the folder of the repository ``name`` ("ORG/NAME"); what is not in the cache yet is fetched.

    files, without: patterns of the files to fetch and to leave out; ``*`` matches slashes too. revision: a branch, tag
    or commit; the folder's name is the commit. Raises ``refusal`` where the hub has no such repository or cannot be
    reached.
    """
    from huggingface_hub import snapshot_download

    advice = "check the name, the network and, for a gated repository, `hf auth login`"
    with hub_errors(f"There is no folder {name}, and the hub did not give it", advice, refusal):
        return Path(
            snapshot_download(
                name,
                repo_type=kind,
                revision=revision,
                allow_patterns=list(files),
                ignore_patterns=list(without) or None,
            )
        )


@contextmanager
def hub_errors(problem: str, advice: str, refusal: type[UserError] = UserError) -> Iterator[None]:
    """Raise ``refusal`` with ``problem``, the hub's reason and ``advice`` where the hub refuses or is out of reach."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except Exception as error:
        # The hub's answers are OSErrors. What breaks on the way there is an error of httpx (huggingface_hub 1) or
        # httpx2 (huggingface_hub 2), of which only one is installed.
        libraries = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
        if not isinstance(error, (OSError, HFValidationError)) and not libraries & {"httpx", "httpx2"}:
            raise
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise refusal(f"{problem} ({reason}): {advice}.") from None
