"""numba's compiled loops: where they are kept, whether they are whole, and a word when they have to be compiled.

numba keeps compiled functions beside their source, or else in the user's cache, and fails where it can write to
neither; it loads whatever it finds there. Here a temporary folder takes their place in the first case, and in the
second a file that is damaged counts as absent, so that it is compiled and written again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
import pickle
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from vla_harness.errors import UserError

from .cache import temporary_folder, user_cache

VARIABLE = "NUMBA_CACHE_DIR"
_DIGEST = hashlib.sha256().digest_size


def choose_numba_cache() -> str:
    """Return "" where numba's own choice of a place works, else a sentence on the temporary folder that replaces it.

    Call it in the parent: its children find the folder in NUMBA_CACHE_DIR. The folder goes when this process ends.
    Raises UserError where the user names a folder in NUMBA_CACHE_DIR that cannot be written, or where there is no
    place at all.
    """
    if named := os.environ.get(VARIABLE):
        if reason := _unwritable(Path(named)):
            raise UserError(
                f"{VARIABLE} is {named}, where nothing can be written ({reason}): name another or unset it."
            )
        return ""
    cache = user_cache()
    if cache is not None and not _unwritable(cache / "numba"):
        return ""
    if not any(_unwritable(source / "__pycache__") for source in _sources()):
        return ""
    folder = temporary_folder()
    os.environ[VARIABLE] = str(folder)
    if "numba" in sys.modules:  # which has read the variable already
        sys.modules["numba"].config.CACHE_DIR = str(folder)
    return (
        f"compiled code is kept in {folder} until the end, because neither the installation nor a home can be written;"
        f" {VARIABLE} names a folder that stays"
    )


def prepare_numba() -> None:
    """Choose the cache, and have numba check what it reads there; call it before robosuite is imported."""
    if told := choose_numba_cache():
        print(told, file=sys.stderr, flush=True)
    from numba.core import caching

    file: Any = caching.IndexDataCacheFile
    if getattr(file, "load", None) is not _load:
        _numba.update(load_index=file._load_index, save_data=file._save_data)
        file.load, file.save = _load, _save
        file._load_index, file._load_data, file._save_data = _load_index, _load_data, _save_data


_numba: dict[str, Any] = {}
"""numba's own methods that are called below."""


def _load(self: Any, key: Any) -> Any:
    """Return a function's stored code, or None, and then numba compiles it."""
    name = self._load_index().get(key)
    if name is not None:
        try:
            return self._load_data(name)
        except FileNotFoundError:
            pass
        except Exception as error:  # whatever unpickling makes of other bytes
            print(f"{self._data_path(name)} is not what was written ({error}): made anew", file=sys.stderr)
    _say_that_it_compiles()
    return None


def _load_index(self: Any) -> dict[Any, str]:
    try:
        return _numba["load_index"](self)
    except Exception as error:
        print(f"{self._index_path} is not what was written ({error}): made anew", file=sys.stderr)
        return {}


def _load_data(self: Any, name: str) -> Any:
    """Read what ``_save_data`` wrote; raises ValueError where it is something else."""
    stored = Path(self._data_path(name)).read_bytes()
    pickled, digest = stored[:-_DIGEST], stored[-_DIGEST:]
    if hashlib.sha256(pickled).digest() != digest:
        raise ValueError("another checksum, or none")
    return pickle.loads(pickled)


def _save_data(self: Any, name: str, data: Any) -> None:
    """Write the pickled code and its SHA-256, which an unchanged numba reads over."""
    pickled = self._dump(data)
    with self._open_for_write(self._data_path(name)) as file:
        file.write(pickled + hashlib.sha256(pickled).digest())


def _save(self: Any, key: Any, data: Any) -> None:
    """Store a function's code; a full disk costs the next process its time and not this one its episode."""
    try:
        names = self._load_index()
        taken = set(names.values())
        fresh = (name for number in itertools.count(1) if (name := self._data_name(number)) not in taken)
        name = names[key] if key in names else next(fresh)
        self._save_index(names | {key: name})
        self._save_data(name, data)
    except OSError as error:
        print(f"compiled code cannot be kept in {self._cache_path} ({error.strerror or error})", file=sys.stderr)


_voice: list[socket.socket] = []
"""Held while this process compiles, as the one among its siblings that says so."""


def _say_that_it_compiles() -> None:
    """Print one line, once in all workers of a run: a bound abstract address is gone when its process is."""
    if _voice:
        return
    _voice.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    if sys.platform == "linux":
        try:
            _voice[0].bind(f"\0vla_harness.compiling.{os.getppid()}")
        except OSError:
            return
    print(
        "compiling the simulator's loops, once for this installation: about half a minute", file=sys.stderr, flush=True
    )


def _sources() -> list[Path]:
    """Return the folders of the modules whose functions are compiled: robosuite's and our own."""
    package = importlib.util.find_spec("robosuite")
    places = list(package.submodule_search_locations or ()) if package else []
    return [Path(__file__).with_name("stepping"), *(Path(place) / "utils" for place in places)]


def _unwritable(folder: Path) -> str:
    """Return why no file can be written into ``folder``, which is made if it is not there; "" where one can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)
