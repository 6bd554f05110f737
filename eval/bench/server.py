"""What the action server adds to a policy, and how much it carries: ``python eval/bench/server.py``.

The policy costs nothing, so all of the time is the server's, the protocol's and the client's. In the same run, from the
same clients, two servers are asked that do no more than they must: a FastAPI handler with json_numpy, as OpenVLA's
``deploy.py`` has it, and openpi's websocket server. Each server is a process, and the clients are threads of this one.
The rows take turns for some rounds, and of each row the quietest round counts: another program's load lasts for
seconds, and the processor time of a request is hardly changed by it.
"""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys
    from pathlib import Path

    if not __package__:  # a file of a checkout, which need not be installed
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.eval.bench.server"))

import asyncio
import http.client
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import json_numpy
import numpy as np
from openpi_client import msgpack_numpy
from websockets.sync.client import connect as open_websocket

from tformer.values import Duration, PositiveDuration, PositiveInt
from vla_harness.command import DONE, parse_options, run_command
from vla_harness.servers.client import ActionClient
from vla_harness.types import DELTA_EEF_POSE, Observation, Policy, PolicySpec

CLIENTS = (1, 8, 32)
WARM_UP = 20
Ask = Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure latency and throughput of the action server on loopback."""

    seconds: PositiveDuration = 2.0
    """Seconds of each measurement in a round."""

    rounds: PositiveInt = 5
    """Rounds in which the rows take turns."""

    soak_minutes: Duration = 0.0
    """Minutes of requests from 8 clients, while the server's memory is watched. 0: none."""


class FreePolicy(Policy):
    """Looks at one 256 x 256 frame and answers with zeros, at no cost."""

    def __init__(self) -> None:
        self.spec = PolicySpec("free", DELTA_EEF_POSE, cameras=("agentview",), image_size=(256, 256), horizon=1)

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, 1, 7) float32 zeros."""
        return np.zeros((len(observations), 1, 7), np.float32)


def serve_ours(ready: Any) -> None:
    """Run our server."""
    import socket

    from vla_harness.servers.action_server import ActionServer, Server
    from vla_harness.servers.core.service import ActionService

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    ready.put(listener.getsockname()[1])
    Server(ActionServer(policy="free"), ActionService(FreePolicy()), None, listener).run()


def serve_plain(ready: Any) -> None:
    """Run a FastAPI handler that decodes, asks and encodes, as OpenVLA's ``deploy.py`` does."""
    import socket

    import uvicorn
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse

    json_numpy.patch()
    app, policy = FastAPI(), FreePolicy()

    @app.post("/act")
    def act(payload: dict[str, Any]) -> JSONResponse:
        seen = Observation({"agentview": payload["image"]}, np.zeros(0), payload["instruction"], "", 0)
        return JSONResponse(policy.act([seen])[0, 0])

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else uvloop's replies wait 40 ms for the client
    ready.put(listener.getsockname()[1])
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=75)
    uvicorn.Server(config).run(sockets=[listener])


def serve_openpi(ready: Any) -> None:
    """Run openpi's websocket server, the lines that carry messages."""
    from websockets.asyncio.server import ServerConnection, serve

    policy = FreePolicy()

    async def handle(websocket: ServerConnection) -> None:
        await websocket.send(msgpack_numpy.packb({}))
        async for data in websocket:
            message = msgpack_numpy.unpackb(data)
            seen = Observation({"agentview": message["observation/image"]}, np.zeros(0), message["prompt"], "", 0)
            await websocket.send(
                msgpack_numpy.packb({"actions": policy.act([seen])[0], "server_timing": {"infer_ms": 0.0}})
            )

    async def run() -> None:
        async with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
            ready.put(next(iter(server.sockets)).getsockname()[1])
            await asyncio.Future()

    asyncio.run(run())


@contextmanager
def running(server: Callable[[Any], None]) -> Iterator[tuple[int, int]]:
    """Start a server's process; yields its port and process id."""
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    process = context.Process(target=server, args=(ready,), daemon=True)
    process.start()
    try:
        port = ready.get(timeout=120)
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status != 503:
                    break
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)
        yield port, process.pid or 0
    finally:
        process.kill()
        process.join()


FRAME = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)


def ours_native(port: int) -> Ask:
    """Return a question in our own form (msgpack over HTTP), by the light client."""
    client = ActionClient(f"http://127.0.0.1:{port}")
    return lambda: client.act({"agentview": FRAME}, [], "push the plate")


def json_form(port: int) -> Ask:
    """Return a question in OpenVLA's form, over one kept connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Content-Type": "application/json"}

    def ask() -> Any:
        body = json_numpy.dumps({"image": FRAME, "instruction": "push the plate"})
        connection.request("POST", "/act", body, headers)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return json_numpy.loads(response.read())

    return ask


def websocket_form(path: str) -> Callable[[int], Ask]:
    """Return what makes questions in openpi's form."""

    def make(port: int) -> Ask:
        socket = open_websocket(f"ws://127.0.0.1:{port}{path}", compression=None, max_size=None).__enter__()
        socket.recv()

        def ask() -> Any:
            socket.send(msgpack_numpy.packb({"observation/image": FRAME, "prompt": "push the plate"}))
            reply = msgpack_numpy.unpackb(socket.recv())
            return reply["actions"]

        return ask

    return make


def latencies(ask: Ask, seconds: float) -> list[float]:
    """Return milliseconds of questions, one after the other."""
    for _ in range(WARM_UP):
        ask()
    until, taken = time.perf_counter() + seconds, []
    while time.perf_counter() < until:
        before = time.perf_counter()
        ask()
        taken.append(1000 * (time.perf_counter() - before))
    return taken


def throughput(asks: Sequence[Ask], seconds: float) -> tuple[int, float]:
    """Return how many questions were answered when all of ``asks`` ask at once, and the seconds that this took."""
    counts = [0] * len(asks)
    before = time.perf_counter()
    until = before + seconds

    def work(number: int) -> None:
        while time.perf_counter() < until:
            asks[number]()
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(asks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts), time.perf_counter() - before


def cpu_s(pid: int) -> float:
    """Return the seconds of processor time a process has used: what other processes on the machine do not change."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Return a process's resident memory in MB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1000


def soak(minutes: float) -> None:
    """Ask in three forms from 8 clients, and print the server's memory at ten moments and how it grew."""
    forms = (json_form, ours_native, websocket_form("/openpi"))
    with running(serve_ours) as (port, pid):
        asks = [forms[number % len(forms)](port) for number in range(8)]
        throughput(asks, minutes * 6)
        held, total = [memory_mb(pid)], 0
        print(f"\nsoak: {held[0]:.1f} MB after warm-up", flush=True)
        for _ in range(10):
            total += throughput(asks, minutes * 6)[0]
            held.append(memory_mb(pid))
            print(f"soak: {held[-1]:.1f} MB after {total:,} requests", flush=True)
    print(
        f"soak: {held[-1] - held[0]:+.1f} MB in all, {held[-1] - held[5]:+.1f} MB in the second half;"
        f" a client that asks twice a second would have taken {total / 7200:.1f} hours"
    )


@dataclass(frozen=True)
class Row:
    """A server and a form of asking it."""

    name: str
    server: Callable[[Any], None]
    make: Callable[[int], Ask]


ROWS = (
    Row("ours, msgpack over HTTP", serve_ours, ours_native),
    Row("ours, OpenVLA's JSON", serve_ours, json_form),
    Row("plain FastAPI handler, OpenVLA's JSON", serve_plain, json_form),
    Row("ours, openpi's websocket", serve_ours, websocket_form("/openpi")),
    Row("openpi's own websocket server", serve_openpi, websocket_form("/")),
)


@dataclass(frozen=True)
class Round:
    """What one row was measured to do in one round. Milliseconds; CPU is processor time for each request."""

    p50: float
    p99: float
    server_cpu: float
    client_cpu: float
    rates: tuple[float, ...]


def measure(asks: Sequence[Ask], pid: int, seconds: float) -> Round:
    """Measure one row; ``asks`` are as many as the most clients at once."""
    server, client = cpu_s(pid), time.process_time()
    taken = sorted(latencies(asks[0], seconds))
    cost = 1000 / (len(taken) + WARM_UP)
    server, client = cpu_s(pid) - server, time.process_time() - client
    counted = [throughput(asks[:clients], seconds) for clients in CLIENTS]
    return Round(
        taken[len(taken) // 2],
        taken[int(len(taken) * 0.99)],
        server * cost,
        client * cost,
        tuple(count / duration for count, duration in counted),
    )


def quietest(rounds: Sequence[Round]) -> list[float]:
    """Return the table's numbers: the least of each time, the greatest of each rate."""
    times = [min(getattr(one, name) for one in rounds) for name in ("p50", "p99", "server_cpu", "client_cpu")]
    return times + [max(rates) for rates in zip(*(one.rates for one in rounds), strict=True)]


def bench(options: Bench) -> int:
    """Print the table."""
    policy = FreePolicy()
    seen = Observation({"agentview": FRAME}, np.zeros(0, np.float32), "push the plate", "bench", 0)
    inside = statistics.median(latencies(lambda: policy.act([seen]), 0.2))
    print(f"in process: {inside:.3f} ms; load of the machine before: {os.getloadavg()[0]:.1f}\n", flush=True)
    measured: dict[str, list[Round]] = {row.name: [] for row in ROWS}
    with ExitStack() as stack:
        servers = {server: stack.enter_context(running(server)) for server in {row.server: None for row in ROWS}}
        asks = {row.name: [row.make(servers[row.server][0]) for _ in range(max(CLIENTS))] for row in ROWS}
        for _ in range(options.rounds):
            for row in ROWS:
                measured[row.name].append(measure(asks[row.name], servers[row.server][1], options.seconds))
    heads = ["p50 ms", "p99 ms", "server CPU ms", "client CPU ms", *(f"req/s, {n} clients" for n in CLIENTS)]
    print(f"| {'':37} | {' | '.join(heads)} |")
    print(f"|{'-' * 39}|{'|'.join('-' * (len(head) + 1) + ':' for head in heads)}|")
    for row in ROWS:
        numbers = quietest(measured[row.name])
        cells = [f"{n:{len(head)}.{2 if 'ms' in head else 0}f}" for head, n in zip(heads, numbers, strict=True)]
        print(f"| {row.name:37} | {' | '.join(cells)} |")
    if options.soak_minutes:
        soak(options.soak_minutes)
    return DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    return run_command(lambda: bench(parse_options(Bench, arguments, "server.py")))
