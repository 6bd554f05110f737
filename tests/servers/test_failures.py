"""A policy that fails: for one request, until it is warmed up again, or for good."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import requests

from tests.servers.test_command import TOYS, started
from tests.servers.toys import LookingPolicy, native, post, serving, url, wait_until
from vla_harness.errors import RunFailed
from vla_harness.servers import action_server
from vla_harness.servers.action_server import ActionServer, Server
from vla_harness.servers.core.service import MAX_FAILURES, ActionService
from vla_harness.servers.core.startup import listen
from vla_harness.servers.protocols.openapi import ACT
from vla_harness.types import Observation

EXAMPLE = ACT["requestBody"]["content"]["application/json"]["examples"]["openvla-oft"]["value"]


class Panic(BaseException):
    """What a library in Rust raises."""


class FailingPolicy(LookingPolicy):
    """Raises what ``errors`` has for an instruction; with ``broken`` on every observation."""

    errors: dict[str, Any] = {
        "panic": Panic("byte index 3 is not a char boundary"),
        "stop": StopIteration("nothing"),
        "exit": SystemExit(3),
        "cancel": asyncio.CancelledError(),
    }
    broken: BaseException | None = None

    def one(self, seen: Observation) -> np.ndarray:
        if self.broken is not None:
            raise self.broken
        if seen.instruction in self.errors:
            raise self.errors[seen.instruction]
        return super().one(seen)


@contextmanager
def failing(policy: LookingPolicy) -> Iterator[tuple[Server, list[BaseException]]]:
    """Serve a policy that may break; yields the server and what ``run`` raised once it has ended."""
    server = Server(ActionServer(policy="random"), ActionService(policy), None, listen("127.0.0.1", 0))
    raised: list[BaseException] = []

    def run() -> None:
        try:
            server.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield server, raised
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()


def ask(server: Server, instruction: str) -> requests.Response:
    return post(server, {"observations": [native(instruction=instruction)]})


@pytest.mark.parametrize("instruction", sorted(FailingPolicy.errors))
def test_whatever_a_policy_raises_costs_one_request(instruction: str) -> None:
    policy = FailingPolicy()
    with serving(policy) as server:
        reply = ask(server, instruction)
        assert (reply.status_code, reply.json()["error"][:38]) == (500, "The policy failed on this request; the")
        wait_until(lambda: server.service.health == (True, "healthy"))
        assert ask(server, "go on").ok
        crashed = not isinstance(policy.errors[instruction], Exception)
        assert len([seen for seen in policy.seen if seen.instruction == "warm up"]) == 1 + crashed


def test_a_panic_costs_its_neighbours_in_the_batch_nothing() -> None:
    with serving(FailingPolicy(), max_batch=3, max_wait_s=10.0) as server, ThreadPoolExecutor(3) as clients:
        replies = clients.map(
            lambda step: post(server, {"observations": [native(step, instruction="panic" if step == 1 else "go on")]}),
            range(3),
        )
        assert [reply.status_code for reply in replies] == [200, 500, 200]


def test_a_policy_that_a_panic_broke_fails_health_and_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_server, "FAILURE_SHOWN_S", 1.0)
    policy = FailingPolicy()
    with failing(policy) as (server, raised):
        wait_until(lambda: server.service.health[0])
        policy.broken = Panic("poisoned")
        assert ask(server, "panic").status_code == 500
        wait_until(lambda: server.service.failure is not None)
        reply = requests.get(f"{url(server)}/health")
        reason = "The policy 'looking' failed on a blank observation: Panic: poisoned"
        assert (reply.status_code, reply.json()["status"], reply.json()["reason"]) == (503, "broken", reason)
        assert requests.get(f"{url(server)}/healthz").text == f"{reason}\n"
        reply = ask(server, "go on")
        assert (reply.status_code, reply.json()["error"]) == (503, reason)
        wait_until(lambda: bool(raised))
    assert isinstance(raised[0], RunFailed) and str(raised[0]).startswith(reason)


def test_failures_in_a_row_have_the_policy_warmed_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_server, "FAILURE_SHOWN_S", 0.1)
    policy = FailingPolicy()
    with failing(policy) as (server, raised):
        wait_until(lambda: server.service.health[0])
        for _ in range(MAX_FAILURES - 1):
            assert ask(server, "break").status_code == 500
        assert ask(server, "go on").ok and len(policy.batches) == MAX_FAILURES + 1
        policy.broken = RuntimeError("CUDA error: device-side assert triggered")
        for _ in range(MAX_FAILURES):
            assert server.service.health[0] and ask(server, "go on").status_code == 500
        wait_until(lambda: bool(raised))
    assert "failed on a blank observation: RuntimeError: CUDA error: device-side" in str(raised[0])


def test_a_warm_up_that_fails_ends_the_command_with_the_reason() -> None:
    process = subprocess.run(
        [*TOYS, "--policy", "broken", "--port", "0"], capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == 1
    sentence = "failed: The policy 'looking' failed on a blank observation: RuntimeError: no weights; the traceback is"
    assert process.stderr.splitlines()[-1].startswith(sentence)


def test_a_drain_that_runs_out_answers_503_to_what_waits_and_what_is_computed() -> None:
    with serving(LookingPolicy(seconds=2.5), drain_s=0.3, max_batch=1) as server, ThreadPoolExecutor(2) as clients:
        replies = [clients.submit(post, server, {"observations": [native(step)]}) for step in range(2)]
        wait_until(lambda: server.service.unfinished == 2)
        server.stop()
        for reply in replies:
            assert reply.result(2).status_code == 503 and reply.result().headers["Retry-After"] == "2"
            assert reply.result().json()["error"] == "The server was stopped before this was answered."


def test_the_command_ends_although_the_policy_computes_on() -> None:
    with (
        started(*TOYS, "--policy", "stuck", "--drain-s", "0.2") as (process, address),
        ThreadPoolExecutor(1) as clients,
    ):
        asked = clients.submit(requests.post, f"{address}/act", json=EXAMPLE, timeout=30)
        wait_until(lambda: "vla_queue_seconds_count 1.0" in requests.get(f"{address}/metrics").text)
        process.send_signal(signal.SIGTERM)
        assert asked.result(10).status_code == 503
        assert process.wait(10) == 0
        assert process.stdout is not None and "1 request got 503 after --drain-s 0.2" in process.stdout.read()
