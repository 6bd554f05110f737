"""The formats of ``--out``, by the ending of its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import UserError
from ..results.files import explain_write_errors, write_text
from .comparison import Comparison
from .content import document
from .csv_format import to_csv
from .page import html_page
from .text_formats import latex, markdown

FORMATS: dict[str, Callable[[Comparison], str]] = {
    ".md": lambda comparison: markdown(document(comparison)),
    ".tex": lambda comparison: latex(document(comparison)),
    ".csv": to_csv,
    ".html": lambda comparison: html_page(document(comparison)),
}


def check_format(path: Path) -> None:
    """Raise UserError unless the ending of ``path`` names a format."""
    if path.suffix not in FORMATS:
        raise UserError(f"--out is {path}: end its name in {', '.join(FORMATS)}.")


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write the comparison in the format that the ending of ``path`` names. Raises UserError if that is impossible."""
    check_format(path)
    text = FORMATS[path.suffix](comparison)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
