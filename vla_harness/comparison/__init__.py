"""Comparing runs: read them, check that they were measured alike, test every two, and write tables."""

from .comparison import Comparison, compare
from .content import document
from .formats import FORMATS, write_comparison
from .runs import ComparedRun, read_runs

__all__ = ["FORMATS", "ComparedRun", "Comparison", "compare", "document", "read_runs", "write_comparison"]
