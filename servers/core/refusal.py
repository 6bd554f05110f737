"""Why a request gets no action: a status and one sentence, on every protocol."""

from __future__ import annotations


class Refusal(Exception):
    """A request that is not answered with an action.

    status: HTTP's status. sentence: names the field and says what was expected. field: where it is, "" for all of it.
    retry_after_s: seconds after which the same request may succeed; None when it will not.
    """

    def __init__(self, status: int, sentence: str, field: str = "", retry_after_s: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.retry_after_s = status, retry_after_s
        self.sentence, self.field = _sendable(sentence), _sendable(field)  # they may quote the client


def bad_field(field: str, expected: str) -> Refusal:
    """Return the refusal of a field that is missing or wrong: 422."""
    return Refusal(422, f"{field}: {expected}", field)


def _sendable(text: str) -> str:
    """Return ``text`` with half characters, which UTF-8 does not hold, written out."""
    return text.encode("utf-8", "backslashreplace").decode()
