"""The two ways in which a command stops without a traceback."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something the user can put right; the message is one sentence that says what to do. Exit code 2."""


class CommandFailed(Exception):
    """A command cannot go on, though nothing was asked wrongly; the message is one sentence. Exit code 1."""


class TrainingFailed(CommandFailed):
    """A training that cannot go on, such as a loss that is no number."""


@contextmanager
def refused_values() -> Iterator[None]:
    """Turn a ValueError of a model or sampler into a UserError: the values came from the command line."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{str(error).rstrip('.')}; give other values.") from None


_REFUSALS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ENODEV),
)


def refused_path(error: BaseException) -> str:
    """Return the sentence for a path that the system refuses, which only the user can have given; "" for others.

    A file that is not there is none of them: who looks for one says what it is.
    """
    if not isinstance(error, OSError) or error.errno not in _REFUSALS or not error.filename:
        return ""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    shown = name if len(name) <= 100 else f"{name[:60]}…{name[-30:]}"
    return f"{shown} cannot be used ({error.strerror}): mend that, or give another path."


def disk_is_full(error: BaseException) -> bool:
    """Return True where ``error`` says that nothing more can be written, in whichever library's words.

    torch.save reports a failed write of its archive as RuntimeError, safetensors by an exception of its own.
    """
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(words in str(error) for words in ("No space left on device", "unexpected pos", "PytorchStreamWriter"))
