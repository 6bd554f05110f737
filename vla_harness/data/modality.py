"""GR00T's meta/modality.json: which entries of state and action mean what, and windows of them.

Source: NVIDIA/Isaac-GR00T N1.5 ``gr00t/data/dataset.py`` and ``schema.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from .features import Feature, is_numeric
from .files import take

if TYPE_CHECKING:
    from .dataset import Dataset, Episode

DEFAULT_COLUMNS = {"state": "observation.state", "action": "action"}


@dataclass(frozen=True)
class Part:
    """Entries ``start`` to ``end`` of the column ``original_key``.

    absolute: beyond the episode's ends the edge value is repeated; else zeros. rotation_type: e.g. "axis_angle".
    """

    original_key: str
    start: int
    end: int
    absolute: bool = True
    rotation_type: str | None = None
    dtype: str = "float64"


@dataclass(frozen=True)
class Modality:
    """The parts by their short names; video and annotation: short name -> the dataset's column."""

    state: Mapping[str, Part]
    action: Mapping[str, Part]
    video: Mapping[str, str]
    annotation: Mapping[str, str]

    @property
    def keys(self) -> tuple[str, ...]:
        """Every part as "state.…", "action.…", "video.…", "annotation.…"."""
        groups = {"state": self.state, "action": self.action, "video": self.video, "annotation": self.annotation}
        return tuple(f"{group}.{key}" for group, parts in groups.items() for key in parts)

    def part(self, key: str) -> Part:
        """Return the part "state.…" or "action.…". Raises UserError that lists the known ones."""
        group, _, name = key.partition(".")
        parts = {"state": self.state, "action": self.action}.get(group, {})
        if name not in parts:
            raise UserError(f"The dataset's meta/modality.json has no {key!r} (it has: {', '.join(self.keys)}).")
        return parts[name]


def read_modality(content: Mapping[str, Any], path: Path, features: Mapping[str, Feature]) -> Modality:
    """Return what modality.json's ``content`` says. Raises UserError where it does not fit the features."""
    groups: dict[str, dict[str, Part]] = {}
    for group, column in DEFAULT_COLUMNS.items():
        groups[group] = {}
        for key, entry in take(content, group, dict, path).items():
            where = f"{path} ({group}.{key})"
            if not isinstance(entry, Mapping):
                raise UserError(f"{where} is {entry!r:.80}: it must be an object with start and end.")
            original = entry.get("original_key") or column
            start, end = take(entry, "start", int, where), take(entry, "end", int, where)
            if not isinstance(original, str) or original not in features:
                raise UserError(f"{where} takes its values from {original!r}, which meta/info.json does not list.")
            if not 0 <= start < end <= features[original].size:
                raise UserError(
                    f"{where} takes the entries {start} to {end} of {original}, which has {features[original].size}:"
                    " mend start and end."
                )
            kinds: dict[str, type | tuple[type, ...]] = {
                "absolute": bool,
                "rotation_type": (str, type(None)),
                "dtype": str,
            }
            rest = {name: entry[name] for name in kinds if name in entry}
            for name, value in rest.items():
                if not isinstance(value, kinds[name]) or (name == "dtype" and not is_numeric(value)):
                    raise UserError(f"{where} says {value!r:.80} of {name}: mend that field.")
            groups[group][key] = Part(original, start, end, **rest)
    for group in ("video", "image", "annotation"):
        entries = content.get(group) or {}
        if not isinstance(entries, Mapping) or not all(isinstance(one or {}, Mapping) for one in entries.values()):
            raise UserError(f"{path} says {entries!r:.80} of {group}: it must be an object of objects.")
    names = {
        group: {key: (entry or {}).get("original_key") or default.replace("{}", key) for key, entry in entries.items()}
        for group, entries, default in (
            ("video", {**(content.get("video") or {}), **(content.get("image") or {})}, "{}"),
            ("annotation", content.get("annotation") or {}, "annotation.{}"),
        )
    }
    for group, entries in names.items():
        for key, original in entries.items():
            if not isinstance(original, str) or original not in features:
                raise UserError(f"{path} takes {group}.{key} from {original!r}, which meta/info.json does not list.")
    return Modality(groups["state"], groups["action"], names["video"], names["annotation"])


def default_modality(features: Mapping[str, Feature], cameras: Sequence[str]) -> Modality:
    """Return one part for each state feature and for the action, cameras by the ends of their names, and the task."""

    def whole(name: str) -> Part:
        return Part(name, 0, features[name].size)

    states = [name for name, f in features.items() if name.startswith("observation.state") and not f.is_visual]
    actions = [name for name in features if name == "action" or name.startswith("action.")]
    return Modality(
        {name.removeprefix("observation.").removeprefix("state.") or "state": whole(name) for name in states},
        {name.removeprefix("action.") or "action": whole(name) for name in actions},
        {name.removeprefix("observation.images."): name for name in cameras},
        {"human.task_description": "task_index"} if "task_index" in features else {},
    )


def modality_json(modality: Modality, features: Mapping[str, Feature]) -> dict[str, Any]:
    """Return the content of modality.json; ``read_modality`` reads it back.

    Cameras whose frames are images in the tables are listed under "image", which NVIDIA's loader passes over: it looks
    for a video of each entry of "video", and refuses the whole dataset where there is none.
    """
    content: dict[str, Any] = {}
    for group, parts in (("state", modality.state), ("action", modality.action)):
        content[group] = {
            key: {
                "start": part.start,
                "end": part.end,
                "absolute": part.absolute,
                "rotation_type": part.rotation_type,
                "dtype": part.dtype,
                "original_key": part.original_key,
            }
            for key, part in parts.items()
        }
    content["video"] = {}
    for key, original in modality.video.items():
        group = "image" if features[original].dtype == "image" else "video"
        content.setdefault(group, {})[key] = {"original_key": original}
    content["annotation"] = {key: {"original_key": original} for key, original in modality.annotation.items()}
    return content


def part_values(episode: Episode, part: Part) -> np.ndarray:
    """Return the (length, D) values of a part of state or action, as they are stored."""
    return episode.column(part.original_key).reshape(episode.length, -1)[:, part.start : part.end]


class ModalityReader:
    """Windows of a dataset in GR00T's terms."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.modality = dataset, dataset.modality

    def window(self, episode: Episode, row: int, wanted: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """Return each wanted key at ``row`` plus its offsets: what the reference's ``get_step_data`` returns.

        "state.…" and "action.…": (n, D) float64; beyond the episode's ends the edge value where the part is absolute,
        else zeros. "video.…": (n, H, W, 3) uint8, edge frames repeated. "annotation.…": n strings.
        """
        return {key: self._values(episode, row, key, offsets) for key, offsets in wanted.items()}

    def _values(self, episode: Episode, row: int, key: str, offsets: Sequence[int]) -> Any:
        group, _, name = key.partition(".")
        rows = row + np.asarray(offsets, np.int64)
        inside = np.clip(rows, 0, episode.length - 1)
        if group == "video":
            return episode.images(self._column(self.modality.video, key, name), inside.tolist())
        if group == "annotation":
            return self._words(episode, self._column(self.modality.annotation, key, name), inside)
        part = self.modality.part(key)
        values = part_values(episode, part)[inside].astype(np.float64)
        if not part.absolute:
            values[rows != inside] = 0.0
        return values

    def _words(self, episode: Episode, column: str, rows: np.ndarray) -> list[str]:
        cells = episode.column(column)[rows]
        tasks = self.dataset.tasks
        unknown = next((cell for cell in cells if not isinstance(cell, str) and int(cell) not in tasks), None)
        if unknown is not None:
            raise UserError(
                f"Episode {episode.index} of {self.dataset.path} says {unknown} of {column}, which is no task_index"
                " of its tasks: mend the tasks or the column."
            )
        words = [cell if isinstance(cell, str) else tasks[int(cell)] for cell in cells]
        if self.dataset.has_instructions and not all(text.strip() for text in words):
            raise UserError(
                f"Episode {episode.index} of {self.dataset.path} has empty words in {column}: mend the tasks or the"
                " column."
            )
        return words

    def _column(self, names: Mapping[str, str], key: str, name: str) -> str:
        if name not in names:
            raise UserError(
                f"The dataset {self.dataset.path} has no {key!r} (it has: {', '.join(self.modality.keys)}): name one"
                " of these, or add it to meta/modality.json."
            )
        return names[name]

    def metadata(self, embodiment: str) -> dict[str, Any]:
        """Return the entry of experiment_cfg/metadata.json: statistics, modalities, embodiment_tag."""
        statistics: dict[str, Any] = {}
        modalities: dict[str, Any] = {}
        for group, parts in (("state", self.modality.state), ("action", self.modality.action)):
            statistics[group] = {
                key: {
                    name: values[part.start : part.end].tolist()
                    for name, values in self.dataset.statistics[part.original_key].items()
                }
                for key, part in parts.items()
            }
            modalities[group] = {
                key: {
                    "absolute": part.absolute,
                    "rotation_type": part.rotation_type,
                    "shape": [part.end - part.start],
                    "continuous": np.dtype(part.dtype).kind == "f",
                }
                for key, part in parts.items()
            }
        modalities["video"] = {}
        for key, original in self.modality.video.items():
            height, width, channels = self.dataset.features[original].shape
            modalities["video"][key] = {"resolution": [width, height], "channels": channels, "fps": self.dataset.fps}
        return {"statistics": statistics, "modalities": modalities, "embodiment_tag": embodiment}
