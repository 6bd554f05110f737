"""The model of throughput against a simulated queue of workers and copies of a policy."""

from __future__ import annotations

import heapq
import random
from dataclasses import replace

import pytest

from vla_harness.statistics.throughput import Throughput, fit_latency, joined


def simulated_rate(model: Throughput, workers: int, copies: int, decisions: int = 4000) -> float:
    """Return decisions a second: workers that think for 0.5 to 1.5 times the mean, copies that take all that waits."""
    draw = random.Random(1)
    think = model.episode_s / model.decisions
    events = [(draw.uniform(0.5, 1.5) * think, "asks", worker) for worker in range(workers)]
    heapq.heapify(events)
    waiting: list[list[int]] = [[] for _ in range(copies)]
    busy: list[list[int]] = [[] for _ in range(copies)]
    done, now = 0, 0.0
    while done < decisions:
        now, what, number = heapq.heappop(events)
        copy = number % copies if what == "asks" else number
        if what == "asks":
            waiting[copy].append(number)
        else:
            for worker in busy[copy]:
                heapq.heappush(events, (now + draw.uniform(0.5, 1.5) * think, "asks", worker))
            done += len(busy[copy])
            busy[copy] = []
        if waiting[copy] and not busy[copy]:
            busy[copy], waiting[copy] = waiting[copy][: model.max_batch], waiting[copy][model.max_batch :]
            heapq.heappush(events, (now + model.latency_s(len(busy[copy])), "answers", copy))
    return done / now


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("workers", [1, 3, 9, 30, 120, 600])
@pytest.mark.parametrize(("first_s", "more_s"), [(0.05, 0.0), (0.15, 0.01), (0.1, 0.1), (0.02, 0.004)])
def test_the_rate_is_that_of_a_simulated_queue(first_s: float, more_s: float, workers: int, copies: int) -> None:
    if workers < copies:
        copies = workers
    model = Throughput(episode_s=8.0, decisions=20, first_s=first_s, more_s=more_s, max_batch=16)
    assert model.decisions * model.rate(workers, copies) == pytest.approx(
        simulated_rate(model, workers, copies), rel=0.12
    )


def test_the_way_costs_workers_and_not_the_policy() -> None:
    near = Throughput(episode_s=8.0, decisions=20, first_s=0.1, more_s=0.02, max_batch=16)
    far = replace(near, way_s=0.1)
    assert far.rate(10, 1) == pytest.approx(replace(near, episode_s=10.0).rate(10, 1))
    assert far.supply(1) == near.supply(1)


def test_limits_are_the_simulators_or_the_policy() -> None:
    model = Throughput(episode_s=10.0, decisions=10, first_s=0.01, more_s=0.0, max_batch=8)
    assert model.rate(4, 1) == pytest.approx(0.4, rel=0.02)  # four simulators, ten seconds an episode
    slow = Throughput(episode_s=10.0, decisions=10, first_s=1.0, more_s=0.5, max_batch=8)
    assert slow.rate(1000, 2) == pytest.approx(2 * 8 / 4.5 / 10, rel=1e-3)  # two copies, 8 in 4.5 s


@pytest.mark.parametrize("rate", [0.05, 0.3, 1.0, 1.7])
def test_the_workers_for_a_rate_reach_it_and_one_less_does_not(rate: float) -> None:
    model = Throughput(episode_s=8.0, decisions=20, first_s=0.1, more_s=0.02, max_batch=16)
    workers = model.workers(rate, 1)
    assert workers is not None and model.rate(workers, 1) >= rate * (1 - 1e-9)
    assert workers == 1 or model.rate(workers - 1, 1) < rate


def test_no_workers_make_a_policy_faster() -> None:
    model = Throughput(episode_s=8.0, decisions=20, first_s=0.1, more_s=0.02, max_batch=16)
    assert model.workers(model.supply(1), 1) is None and model.workers(model.supply(1), 2) is not None


def test_latency_is_a_line_through_the_sizes() -> None:
    first, more = fit_latency({1: (10, 1.0), 3: (5, 0.7), 8: (2, 0.48)})  # 0.1, 0.14 and 0.24 s each
    assert (first, more) == pytest.approx((0.1, 0.02))
    assert fit_latency({4: (5, 1.0)}) == pytest.approx((0.05, 0.05))  # one size: in proportion
    assert fit_latency({1: (5, 1.0), 2: (5, 0.9)})[1] == 0.0  # larger is never cheaper
    assert fit_latency({1: (98, 0.49), 2: (1, 0.5)}) == pytest.approx((0.0099, 0.0099))  # one slow batch of two
    with pytest.raises(ValueError, match="no batch"):
        fit_latency({})


def test_sittings_are_joined() -> None:
    assert joined([{"1": [2, 0.5], "4": [1, 0.1]}, {"1": [1, 0.25]}, {}]) == {1: (3, 0.75), 4: (1, 0.1)}
