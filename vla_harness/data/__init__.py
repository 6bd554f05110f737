"""Datasets of demonstrations: LeRobot v2.1 and v3.0, GR00T's modalities, LIBERO's HDF5 files."""

from typing import TYPE_CHECKING

from tformer.lazy import lazy_names

if TYPE_CHECKING:
    from .convert import convert_dataset
    from .dataset import Dataset, Episode
    from .features import Feature
    from .lerobot import EpisodeRecord
    from .modality import Modality, ModalityReader, Part
    from .opening import open_dataset
    from .writer import DatasetWriter

__all__ = [
    "Dataset",
    "DatasetWriter",
    "Episode",
    "EpisodeRecord",
    "Feature",
    "Modality",
    "ModalityReader",
    "Part",
    "convert_dataset",
    "open_dataset",
]
__getattr__ = lazy_names(
    __name__,
    {
        "convert": ["convert_dataset"],
        "dataset": ["Dataset", "Episode"],
        "features": ["Feature"],
        "lerobot": ["EpisodeRecord"],
        "modality": ["Modality", "ModalityReader", "Part"],
        "opening": ["open_dataset"],
        "writer": ["DatasetWriter"],
    },
)
