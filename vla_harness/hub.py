"""Fetches files from the Hugging Face hub, for checkpoints and datasets alike."""

from __future__ import annotations

from collections.abc import Sequence
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
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(
            snapshot_download(
                name,
                repo_type=kind,
                revision=revision,
                allow_patterns=list(files),
                ignore_patterns=list(without) or None,
            )
        )
    except (OSError, httpx.HTTPError, HFValidationError) as error:  # the hub's answers are OSErrors
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise refusal(
            f"There is no folder {name}, and the hub did not give it ({reason}): check the name, the network and,"
            " for a gated repository, `hf auth login`."
        ) from None
