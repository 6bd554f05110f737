"""How many episodes an hour simulators and copies of a policy play together: demand against supply.

A closed queue. Each of N workers simulates for Z seconds (the way to the policy included), asks, and waits. A copy of
the policy takes what waits when it is free as one batch of b, at most B, and answers after L(b) = first + more (b - 1)
seconds. At x decisions a second in all, each of R copies meets x L / R new questions while it computes a batch: that is
the next batch. A copy is busy for the share u of the time. A question that finds it busy, with one of the others of its
n = N / R workers, waits for half a batch on average before its own, so that a worker's cycle is
Z + L(b) (1 + u / 2 (n - 1) / n), and x = N / cycle (Little's law). No supply exceeds R B / L(B).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Throughput:
    """What a run cost.

    episode_s: seconds of its own that a worker takes for an episode, policy left out.
    decisions: of an episode.
    first_s: seconds of the policy for a batch of one. more_s: for each question more in it.
    max_batch: most questions of a batch.
    way_s: seconds of a decision on its way between simulator and policy, forth and back.
    """

    episode_s: float
    decisions: float
    first_s: float
    more_s: float
    max_batch: int
    way_s: float = 0.0

    def latency_s(self, batch: float) -> float:
        """Seconds of the policy for a batch."""
        return self.first_s + self.more_s * (batch - 1)

    def supply(self, copies: int) -> float:
        """Return the most episodes a second that the copies can decide for."""
        return copies * self.max_batch / self.latency_s(self.max_batch) / self.decisions

    def load(self, rate: float, copies: int) -> tuple[float, float]:
        """Return (mean batch, share of the time a copy is busy) at ``rate`` episodes a second."""
        each = rate * self.decisions / copies
        if each * self.first_s <= 1:
            return 1.0, each * self.first_s
        # b = each * L(b), solved for b; it reaches any size when the supply does not keep up.
        spare = 1 - each * self.more_s
        batch = each * (self.first_s - self.more_s) / spare if spare > 0 else self.max_batch
        return min(max(batch, 1.0), self.max_batch), 1.0

    def wait_s(self, rate: float, workers: int, copies: int) -> float:
        """Return the seconds from a question to its answer at ``rate`` episodes a second."""
        batch, busy = self.load(rate, copies)
        others = max(0.0, 1 - copies / workers)
        return self.latency_s(batch) * (1 + others * busy / 2)

    def rate(self, workers: int, copies: int) -> float:
        """Return the episodes a second of ``workers`` simulators and ``copies`` of the policy."""
        low, high = 0.0, self.supply(copies)
        for _ in range(60):  # the workers that a rate takes grow with it
            middle = (low + high) / 2
            if middle * self._cycle_s(middle, workers, copies) < workers:
                low = middle
            else:
                high = middle
        return low

    def workers(self, rate: float, copies: int) -> int | None:
        """Return the fewest workers that reach ``rate`` episodes a second; None if the copies cannot supply it."""
        if rate >= self.supply(copies):
            return None
        count = max(1, int(rate * self.episode_s))
        while count < rate * self._cycle_s(rate, count, copies):
            count += 1
        return count

    def _cycle_s(self, rate: float, workers: int, copies: int) -> float:
        """Return the seconds that an episode takes a worker."""
        return self.episode_s + self.decisions * (self.way_s + self.wait_s(rate, workers, copies))


def fit_latency(batches: Mapping[int, tuple[int, float]]) -> tuple[float, float]:
    """Return (seconds of a batch of one, seconds of each question more) from {size: (batches, seconds together)}.

    A least-squares line through the mean seconds of each size, weighted by the batches. Where all batches had one size,
    or a few large ones were so slow that a batch seems to cost more than its questions one by one, it is taken to cost
    as much as these. Raises ValueError without a batch.
    """
    total = sum(count for count, _ in batches.values())
    if not total:
        raise ValueError("no batch was measured")
    size = sum(number * count for number, (count, _) in batches.items()) / total
    seconds = sum(together for _, together in batches.values()) / total
    one_by_one = seconds / size, seconds / size
    spread = sum(count * (number - size) ** 2 for number, (count, _) in batches.items())
    if not spread:
        return one_by_one
    slope = sum((number - size) * (together - count * seconds) for number, (count, together) in batches.items())
    more = max(0.0, slope / spread)
    first = seconds - more * (size - 1)
    return (first, more) if more <= first else one_by_one


def joined(parts: Sequence[Mapping[str, Sequence[float]]]) -> dict[int, tuple[int, float]]:
    """Return the batches of several sittings, each {size: [batches, seconds together]}, as one."""
    sizes = sorted({int(size) for part in parts for size in part})
    entries = {size: [part[str(size)] for part in parts if str(size) in part] for size in sizes}
    return {size: (int(sum(e[0] for e in found)), sum(e[1] for e in found)) for size, found in entries.items()}
