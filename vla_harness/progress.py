"""The progress of a run: a bar on a terminal, one plain line for each episode when piped."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

from .printing import printable
from .statistics import wilson_interval
from .types import EpisodeResult


class Progress:
    """Shows how far a run is, the time that remains, and the success rate so far with its Wilson 95 % interval.

    What remains is told from the time since the first episode began: loading, compiling and building come before.

    total: episodes of the whole run. already: the finished ones of earlier sittings; errors among them are not
    counted, because they are run again. stream: where to write; the standard error by default, so that a piped
    standard output stays clean.
    """

    def __init__(self, total: int, already: Iterable[EpisodeResult] = (), stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._total = total
        self._outcomes: Counter[str] = Counter(result.outcome for result in already if result.outcome != "error")
        self._before = self._outcomes.total()
        self._started = time.monotonic()
        self._playing: float | None = None  # when the first episode of this sitting began
        self._bar: tqdm | None = None
        if self._stream.isatty():
            self._bar = tqdm(
                total=total,
                initial=self._before,
                file=self._stream,
                unit="episode",
                smoothing=0,  # episodes differ in length, so the mean of all tells more than the last few
                dynamic_ncols=True,
                bar_format="{n}/{total} {bar} elapsed {elapsed}{postfix}",
            )
            self._bar.set_postfix_str(self.rate_text())
        elif self._before:
            self._line(f"{self._before} of {total} episodes are there already: {self.rate_text()}")

    def update(self, result: EpisodeResult) -> None:
        """Count one ended episode and show it."""
        self._outcomes[result.outcome] += 1
        done = self._outcomes.total()
        if self._playing is None:
            self._playing = time.monotonic() - result.wall_s
        if self._bar is not None:
            if result.outcome == "error":
                self._bar.write(printable(f"{result.key}: error: {result.error}"), file=self._stream)
            self._bar.set_postfix_str(f"remaining {self._remaining(done)}, {self.rate_text()}", refresh=False)
            self._bar.update()
            return
        width = len(str(self._total))
        ended = f"error: {result.error}" if result.outcome == "error" else f"{result.outcome} in {result.steps} steps"
        times = f"elapsed {_clock(time.monotonic() - self._started)}, remaining {self._remaining(done)}"
        self._line(f"[{done:{width}}/{self._total}] {result.key}: {ended}; {self.rate_text()}; {times}")

    def rate_text(self) -> str:
        """Return "k/n, rate % [low, high]", with the number of errors if there are any."""
        successes, failures, errors = (self._outcomes[name] for name in ("success", "failure", "error"))
        trials = successes + failures
        text = "no episode finished"
        if trials:
            low, high = wilson_interval(successes, trials)
            text = f"{successes}/{trials} = {100 * successes / trials:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        if errors:
            text += f", {errors} error{'s' * (errors > 1)}"
        return text

    def close(self) -> None:
        """End the bar; what was shown stays."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _remaining(self, done: int) -> str:
        played = time.monotonic() - (self._playing or self._started)
        return _clock(played / (done - self._before) * max(0, self._total - done))

    def _line(self, text: str) -> None:
        print(printable(text), file=self._stream, flush=True)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
