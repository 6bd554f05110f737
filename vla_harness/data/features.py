"""Features: the named columns of a dataset, and how their values lie in Arrow tables."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import UserError
from ..paths import is_name
from ..printing import printable

MOST_NUMBERS = 2**31 - 1
"""Most numbers in a row's value that are believed."""
VISUAL = ("video", "image")


@dataclass(frozen=True)
class Feature:
    """One column. dtype: a numpy name, "string", "video" (an mp4 beside the table) or "image" (PNG in the table).

    shape: of one row's value; (height, width, 3) for visual features, (1,) for single numbers.
    names: of the entries, if they have any. info: what is known of a video (fps, codec, …).
    """

    dtype: str
    shape: tuple[int, ...]
    names: Any = None
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_visual(self) -> bool:
        """Whether its values are images."""
        return self.dtype in VISUAL

    @property
    def is_depth(self) -> bool:
        """Whether its frames are distances, which lerobot marks in ``info``."""
        return any(self.info.get(mark) is True for mark in ("is_depth_map", "video.is_depth_map"))

    @property
    def size(self) -> int:
        """Numbers in one row's value."""
        return math.prod(self.shape)

    def entry_names(self, name: str) -> list[str]:
        """Return a name for each of the value's numbers; ``name`` is the feature's own."""
        names = self.names
        if isinstance(names, Mapping):  # lerobot also writes {"motors": [names]}
            names = next(iter(names.values()), None)
        if isinstance(names, Sequence) and not isinstance(names, str) and len(names) == self.size:
            return [str(one) for one in names]
        return [name] if self.size == 1 else [f"{name}[{i}]" for i in range(self.size)]


BOOKKEEPING: dict[str, Feature] = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}
"""The columns that every LeRobot dataset has beside its own; the writer fills them in."""


def readable_features(entries: Any) -> tuple[Any, tuple[str, ...]]:
    """Return info.json's "features" without those of a dtype that is not known here, and these in words."""
    if not isinstance(entries, Mapping):
        return entries, ()
    dtypes = {name: entry.get("dtype") for name, entry in entries.items() if isinstance(entry, Mapping)}
    unknown = {n: dtype for n, dtype in dtypes.items() if isinstance(dtype, str) and not _is_known(dtype)}
    known = {name: entry for name, entry in entries.items() if name not in unknown}
    if not known:
        return entries, ()
    return known, tuple(f"{name} of the unknown dtype {dtype!r}" for name, dtype in unknown.items())


def parse_features(entries: Any, where: str) -> dict[str, Feature]:
    """Return the features that ``entries``, info.json's "features", describes. Raises UserError."""
    if not isinstance(entries, Mapping) or not entries:
        raise UserError(f'{where} has no "features" object: name a dataset whose {where} is whole.')
    features = {}
    for name, entry in entries.items():
        label = f"features.{name}"
        check_name(name, where)
        if not isinstance(entry, Mapping):
            raise UserError(f"{where} says {entry!r:.80} of {label}: it must be an object with dtype and shape.")
        shape = entry.get("shape")
        if not isinstance(shape, Sequence) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise UserError(f"{where} says {shape!r:.80} of {label}.shape: it must be a list of whole numbers.")
        if math.prod(shape) > MOST_NUMBERS:
            raise UserError(f"{where} says {list(shape)!r:.80} of {label}.shape, which is too large: mend it.")
        dtype = entry.get("dtype")
        if not _is_known(dtype):
            raise UserError(
                f"{where} says {dtype!r:.80} of {label}.dtype: it must be video, image, string or a numpy name."
            )
        if dtype in VISUAL:
            shape = _height_width_channels(shape, entry.get("names"), f"{where} says {list(shape)} of {label}.shape")
        info = entry.get("info") or entry.get("video_info") or {}
        if not isinstance(info, Mapping):
            raise UserError(f"{where} says {info!r:.80} of {label}.info: it must be an object.")
        features[name] = Feature(str(dtype), tuple(shape), entry.get("names"), info)
    return features


def check_name(name: str, where: str) -> None:
    """Raise UserError unless ``name`` can be that of a feature, and with it of a folder of videos."""
    if not is_name(name) or name.startswith("/") or {"", ".", ".."} & set(name.split("/")):
        shown = printable(name[:60]) + ("…" if len(name) > 60 else "")
        raise UserError(f"{where} has a feature {shown!r}, which is no name for a column and its videos: rename it.")


def feature_entry(feature: Feature) -> dict[str, Any]:
    """Return what info.json says of the feature; ``parse_features`` reads it back."""
    entry: dict[str, Any] = {"dtype": feature.dtype, "shape": list(feature.shape), "names": feature.names}
    if feature.is_visual:
        entry["names"] = ["height", "width", "channels"]
    if feature.info:
        entry["info"] = dict(feature.info)
    return entry


def _is_known(dtype: Any) -> bool:
    return is_numeric(dtype) or (isinstance(dtype, str) and dtype in (*VISUAL, "string", "language"))


def is_numeric(dtype: Any) -> bool:
    """Return whether ``dtype`` is numpy's name of a kind of numbers."""
    try:
        return isinstance(dtype, str) and np.dtype(dtype).kind in "biuf"
    except (TypeError, ValueError, SyntaxError):
        return False


def _height_width_channels(shape: Sequence[int], names: Any, what: str) -> tuple[int, ...]:
    """Return an image's (height, width, channels); lerobot's older datasets also put the channels first."""
    if len(shape) != 3 or 0 in shape:
        raise UserError(f"{what}: an image has height, width and channels.")
    if isinstance(names, list) and len(names) == 3 and all(one in names for one in ("height", "width")):
        channels = next((name for name in names if name not in ("height", "width")), "channels")
        height, width, depth = (shape[list(names).index(name)] for name in ("height", "width", channels))
        return height, width, depth
    return (shape[1], shape[2], shape[0]) if shape[0] in (1, 3) and shape[2] not in (1, 3) else tuple(shape)


def column_values(
    column: pa.ChunkedArray, feature: Feature, where: str, row_name: Callable[[int], str] = "row {}".format
) -> np.ndarray:
    """Return (rows, *shape), or (rows,) for the shape (1,), in the feature's dtype. ``where``, row_name: for messages.

    Raises UserError for missing values, for rows whose length is not the feature's and for what is no such number.
    """
    rows = len(column)
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    if feature.dtype == "string" and not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise UserError(f"{where} holds {array.type}, and meta/info.json says string: mend the one or other.")
    if feature.dtype in ("string", "language"):
        return np.array(array.to_pylist(), object)
    shape = tuple(reversed(feature.shape))
    depth = 0
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if array.null_count:
            first = next(row for row, value in enumerate(column.to_pylist()) if _has_gap(value))
            raise UserError(
                f"{where} has {array.null_count} missing values, the first in {row_name(first)}: mend or drop them."
            )
        if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or _is_fixed(array.type)):
            break
        lengths = pc.unique(pc.list_value_length(array)).to_pylist()
        wanted = feature.shape[depth] if depth < len(shape) else None
        if rows and lengths != [wanted]:
            raise UserError(f"{where} holds lists of {_words(lengths)} entries, and meta/info.json says {wanted}.")
        array, depth = array.flatten(), depth + 1
    if not _is_number(array.type):
        raise UserError(f"{where} holds {array.type}, and meta/info.json says {feature.dtype}: mend the one or other.")
    values = array.to_numpy(zero_copy_only=False)
    if values.size != rows * feature.size:
        raise UserError(f"{where} holds {values.size} numbers in {rows} rows, and meta/info.json says {feature.shape}.")
    if values.dtype.kind == "f" and np.dtype(feature.dtype).kind != "f" and not np.isfinite(values).all():
        first = int(np.flatnonzero(~np.isfinite(values))[0]) // max(1, feature.size)
        raise UserError(f"{where} has values that are no finite numbers, the first in {row_name(first)}: mend them.")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, which is refused by its name
        values = values.astype(feature.dtype, copy=False)
    return values.reshape(rows) if feature.shape == (1,) else values.reshape(rows, *feature.shape)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def _has_gap(value: Any) -> bool:
    return value is None or (isinstance(value, list) and any(map(_has_gap, value)))


def _is_fixed(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind)


def _words(lengths: Sequence[Any]) -> str:
    return " and ".join(map(str, sorted(lengths)[:3]))


IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How the ``datasets`` library stores an image."""


def arrow_column(values: Any, feature: Feature) -> pa.Array:
    """Return (rows, *shape) ``values``, or for an image feature PNG bytes or whole cells, as an Arrow column."""
    if feature.dtype == "image":
        cells = (one if isinstance(one, dict) else {"bytes": one, "path": None} for one in values)
        return pa.array(list(cells), IMAGE_TYPE)
    if feature.dtype == "string":
        return pa.array(list(values), pa.string())
    array = np.ascontiguousarray(values, feature.dtype)
    flat = pa.array(array.reshape(-1))
    if feature.shape == (1,):
        return flat
    for size in reversed(feature.shape):
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    return flat.cast(_plain_lists(flat.type))


def _plain_lists(kind: pa.DataType) -> pa.DataType:
    """Return the type with lists of any length, which every reader takes, in the place of fixed ones."""
    return pa.list_(_plain_lists(kind.value_type)) if _is_fixed(kind) else kind


def huggingface_metadata(features: Mapping[str, Feature]) -> dict[bytes, bytes]:
    """Return the schema metadata that tells the ``datasets`` library what the columns are, images above all."""
    described = {name: _huggingface(feature) for name, feature in features.items() if feature.dtype != "video"}
    return {b"huggingface": json.dumps({"info": {"features": described}}).encode()}


def _huggingface(feature: Feature) -> dict[str, Any]:
    if feature.dtype == "image":
        return {"_type": "Image"}
    value = {"dtype": feature.dtype, "_type": "Value"}
    if feature.shape == (1,) or feature.dtype == "string":
        return value
    if len(feature.shape) == 1:
        return {"feature": value, "length": feature.shape[0], "_type": "Sequence"}
    return {"shape": list(feature.shape), "dtype": feature.dtype, "_type": f"Array{len(feature.shape)}D"}
