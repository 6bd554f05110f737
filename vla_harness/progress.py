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

from .statistics import wilson_interval
from .types import EpisodeResult


class Progress:
    """Shows how far a run is, the time left, and the success rate so far with its Wilson 95 % interval.

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
        self._bar: tqdm | None = None
        if self._stream.isatty():
            self._bar = tqdm(
                total=total,
                initial=self._before,
                file=self._stream,
                unit="episode",
                smoothing=0,  # episodes differ in length, so the mean of all tells more than the last few
                dynamic_ncols=True,
                bar_format="{n}/{total} {bar} {elapsed} + {remaining}{postfix}",
            )
            self._bar.set_postfix_str(self.rate_text())
        elif self._before:
            self._line(f"{self._before} of {total} episodes are there already: {self.rate_text()}")

    def update(self, result: EpisodeResult) -> None:
        """Count one ended episode and show it."""
        self._outcomes[result.outcome] += 1
        if self._bar is not None:
            if result.outcome == "error":
                self._bar.write(f"{result.key}: error: {result.error}", file=self._stream)
            self._bar.set_postfix_str(self.rate_text(), refresh=False)
            self._bar.update()
            return
        done = self._outcomes.total()
        width = len(str(self._total))
        ended = f"error: {result.error}" if result.outcome == "error" else f"{result.outcome} in {result.steps} steps"
        self._line(f"[{done:{width}}/{self._total}] {result.key}: {ended}; {self.rate_text()}; {self._time_left(done)}")

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

    def _time_left(self, done: int) -> str:
        elapsed = time.monotonic() - self._started
        left = elapsed / (done - self._before) * (self._total - done)
        return f"{timedelta(seconds=round(elapsed))} gone, {timedelta(seconds=round(max(0.0, left)))} left"

    def _line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)
