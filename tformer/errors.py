"""The two ways in which a command of tformer stops without a traceback."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something the user can mend; the message is one sentence that says what to do. Exit code 2."""


class TrainingFailed(Exception):
    """A training that cannot go on, such as a loss that is no number; the message is one sentence. Exit code 1."""


@contextmanager
def refused_values() -> Iterator[None]:
    """Turn a ValueError of a model or sampler into a UserError: the values came from the command line."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{str(error).rstrip('.')}; give other values.") from None


def disk_is_full(error: BaseException) -> bool:
    """Return True where ``error`` says that nothing more can be written, in whichever library's words.

    torch.save reports a failed write of its archive as RuntimeError, safetensors by an exception of its own.
    """
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(words in str(error) for words in ("No space left on device", "unexpected pos", "PytorchStreamWriter"))
