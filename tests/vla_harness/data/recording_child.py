"""A recording that the tests kill: goes on with the dataset in the folder it is given."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.vla_harness.data import recorded as toy
from vla_harness.data import DatasetWriter

if __name__ == "__main__":
    with DatasetWriter(Path(sys.argv[1]), 10, toy.FEATURES, "toy", toy.MODALITY) as writer:
        print("begun", flush=True)
        toy.write(writer, tuple(range(writer.episodes, 3)))
