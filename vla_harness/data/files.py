"""Reading a dataset's small files, with sentences that name file and field where they are damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError
from ..system_memory import require_memory

NUMBER_BYTES = 8
"""What a cell of a table takes at least."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``. Raises UserError."""
    value = _parse(_text(path), f"{path}")
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object: copy the file again.")
    return value


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects in ``path``, one a line. Raises UserError that names the line."""
    return parse_json_lines(_text(path).splitlines(), path)


def parse_json_lines(lines: Sequence[str], path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects in the ``lines`` of ``path``; blank lines are skipped. Raises UserError."""
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            row = _parse(line, f"Line {number} of {path}")
            if not isinstance(row, dict):
                raise UserError(f"Line {number} of {path} holds no JSON object: mend that line.")
            rows.append(row)
    return rows


def read_whole_lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of ``path``; without the last line where a kill cut it short."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    with suppress(UserError):
        return parse_json_lines(lines, path)
    return parse_json_lines(lines[:-1], path)


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():  # reading a device or a pipe may never end
            raise UserError(f"{path} is no ordinary file: copy the dataset again.")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"There is no {path}: name the folder of a complete LeRobot dataset.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): copy the file again.") from None


def _parse(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{what} is no valid JSON ({error}): copy the file again.") from None
    except RecursionError:
        raise UserError(f"{what} is no valid JSON (nested too deeply): copy the file again.") from None


def take(row: Mapping[str, Any], key: str, kinds: type | tuple[type, ...], where: object) -> Any:
    """Return ``row[key]``, which must be of ``kinds``. Raises UserError that names ``where`` and the field."""
    if key not in row:
        raise UserError(f"{where} has no field {key!r}: copy the file again or add the field.")
    value = row[key]
    if not isinstance(value, kinds) or isinstance(value, bool):
        names = kinds.__name__ if isinstance(kinds, type) else " or ".join(kind.__name__ for kind in kinds)
        raise UserError(f"{where} says {value!r:.80} of {key}, which must be {names}: mend that field.")
    return value


@contextmanager
def explain_parquet_errors(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises for a missing or damaged file into a UserError that names ``path``."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"There is no {path}, which the dataset's metadata names: copy the dataset again.") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{path} is no whole parquet file ({reason}): copy the file again.") from None


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the parquet table in ``path``. Raises UserError."""
    with explain_parquet_errors(path):
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no ordinary file: copy the dataset again.")
        file = pq.ParquetFile(path)
        # A column of one value takes a few bytes on the disk, however long it is.
        needed = file.metadata.num_rows * file.metadata.num_columns * NUMBER_BYTES
        require_memory(needed, f"{path} with its {file.metadata.num_rows:,} rows")
        return file.read(columns=columns)
