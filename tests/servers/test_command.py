"""The command: real processes, real signals, one-sentence errors, and LIBERO played through a server."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests

from tests.servers.toys import LookingPolicy, observation, wait_until_ready
from vla_harness.eval.run_libero import main as run_libero
from vla_harness.protocols import protocol_card
from vla_harness.registry import POLICIES
from vla_harness.results import read_run
from vla_harness.servers.action_server import main
from vla_harness.servers.remote.policy import RemotePolicy

ROOT = Path(__file__).resolve().parents[2]
TOYS = [sys.executable, "-m", "tests.servers.toy_server"]


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "VLA_SERVER_TOKEN"} | {"PYTHONPATH": str(ROOT)}


@contextmanager
def started(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server on a free port; yields it and its URL once it is ready, and kills it at the latest at the end."""
    with subprocess.Popen(
        [*words, "--port", "0"],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            said, url = "", None
            while url is None:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line, f"the server ended: {said}"
                said += line
                url = re.search(r"http://127\.0\.0\.1:\d+", line)
            wait_until_ready(url[0])
            yield process, url[0]
        finally:
            process.kill()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_is_in_flight_finish(signal_number: int) -> None:
    with started(*TOYS, "--policy", "slow") as (process, url), ThreadPoolExecutor(1) as clients:
        remote = RemotePolicy(url, patience_s=5)
        asked = clients.submit(remote.act, [observation()])
        while "vla_queue_seconds_count 1.0" not in requests.get(f"{url}/metrics").text:  # the policy has it
            assert not asked.done()
        process.send_signal(signal_number)
        np.testing.assert_array_equal(asked.result(10)[0], LookingPolicy().one(observation()))
        assert process.wait(15) == 0
        assert process.stdout is not None and "stopped" in process.stdout.read()


def test_what_a_user_can_get_wrong_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VLA_SERVER_TOKEN", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases = {
            ("--policy", "random", "--port", port): f"Port {port} of 127.0.0.1 is in use: give another --port",
            (
                "--policy",
                "random",
                "--port",
                "0",
                "--zmq-port",
                port,
            ): f"Port {port} of 127.0.0.1 is in use: give another --zmq-port",
            ("--policy", "random", "--port", port, "--zmq-port", port): f"--port and --zmq-port are both {port}",
            ("--policy", "random", "--host", "0.0.0.0"): "--host 0.0.0.0 is reached from other machines: give --token",
            ("--policy", "random", "--insecure", "--host", "no.example"): "Port 8000 of no.example cannot be bound",
            ("--policy", "random", "--token-file", str(tmp_path / "no")): "The token file",
            ("--policy", "random", "--port", "0", "--tls-key", str(tmp_path / "no")): "There is no file",
            ("--policy", "random", "--port", "0", "--max-queue", "0"): "--max-queue is 0: give at least 1.",
            (
                "--policy",
                "random",
                "--port",
                "0",
                "--options",
                "seed",
            ): "--policy-option seed has no value: give KEY=VALUE",
            ("--policy", "scripted", "--port", "0"): "The policy 'scripted' reads the simulator's state",
            ("--policy", "nobody", "--port", "0"): "There is no policy 'nobody'",
        }
        for words, sentence in cases.items():
            assert main([*words]) == 2
            said = capsys.readouterr().err
            assert said.startswith(f"error: {sentence}") and said.count("\n") == 1


def played(path: Path) -> dict[str, tuple[str, str, str]]:
    return {str(r.key): (r.outcome, r.action_sha256, r.state_sha256) for r in read_run(path).results}


def test_libero_through_a_server_is_libero_in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy whose actions depend on every byte of both images, the state, the words, the episode and the step."""
    monkeypatch.setitem(POLICIES, "looking", "tests.servers.toys:LookingPolicy")
    monkeypatch.delenv("VLA_SERVER_TOKEN", raising=False)
    short = ["--suite", "spatial", "--tasks", "0", "--trials", "2", "--workers", "1", "--protocol", "openvla-oft"]
    card = replace(protocol_card("openvla-oft"), max_steps={"spatial": 12}, image_size=(64, 64))
    monkeypatch.setattr("vla_harness.evaluate.protocol_card", lambda name: card)
    assert run_libero([*short, "--policy", "looking", "--out", str(tmp_path / "here")]) == 0
    with started(*TOYS, "--policy", "looking") as (_, url):
        assert run_libero([*short, "--server", url, "--out", str(tmp_path / "http")]) == 0
    expected = played(tmp_path / "here")
    assert len(expected) == 2 and len({actions for _, actions, _ in expected.values()}) == 2
    assert played(tmp_path / "http") == expected
    run = read_run(tmp_path / "http")
    assert run.config["policy"] == "looking" and run.sittings[0].provenance["server"] == url


def test_server_and_checkpoint_do_not_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_libero(["--suite", "spatial", "--server", "http://127.0.0.1:1", "--checkpoint", "x"]) == 2
    assert "--server says whose policy acts" in capsys.readouterr().err
