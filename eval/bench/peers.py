"""The same episodes with vla-eval 0.8.0 and with ours, on this machine in one run: times, frames, episodes an hour.

    pip install --no-deps vla-eval==0.8.0 lazyregistry
    python eval/bench/peers.py

Both play the same tasks from the same initial states with the stock packages' physics, two cameras and a policy that
takes a constant time for each chunk of 8 actions, in as many simulator processes. vla-eval runs without a container, as
its own server and orchestrator; its server is up before its clock starts. Each side's time is from the start of its
processes to their end; "while playing" is from the first question to the policy until the last, without imports, the
first simulator and the report. On a machine that is busy with other things, the processor's time says more than the
clock's.
"""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys
    from pathlib import Path

    if not __package__:  # a file of a checkout, which need not be installed
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.eval.bench.peers"))

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tformer.values import Duration, PositiveInt
from vla_harness.command import parse_options, run_command
from vla_harness.errors import RunFailed, UserError
from vla_harness.types import DELTA_EEF_POSE, Observation, Policy, PolicySpec

VLA_EVAL = "0.8.0"
CHUNK = 8
PORT = 18765
ACTIONS = np.random.default_rng(0).uniform(-1.0, 1.0, (CHUNK, 7)).astype(np.float32)
"""Every chunk of both policies, so that both play the same episodes."""


@dataclass(frozen=True)
class PeersBench:
    """vla-eval against ours on the same LIBERO episodes."""

    suite: str = "spatial"
    """spatial, object, goal or 10."""
    tasks: PositiveInt = 2
    """Tasks, from the first."""
    states: PositiveInt = 2
    """Initial states of each task, from the first."""
    steps: PositiveInt = 220
    """Most steps of an episode; no episode of this policy succeeds, so all have them."""
    inference_ms: Duration = 50.0
    """Milliseconds the policy takes for a chunk of 8 actions."""
    workers: PositiveInt = 1
    """Simulator processes of each side."""
    assets: str = "auto"
    """auto, hub, primitive or a folder."""


class Clock:
    """Keeps in a file when the first and the last question to a policy came."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first: float | None = None

    def tick(self) -> None:
        """Note a question."""
        now = time.time()
        self._first = self._first or now
        self._path.write_text(json.dumps([self._first, now]))

    @staticmethod
    def seconds(path: Path) -> float:
        """Return the seconds between the two."""
        first, last = json.loads(path.read_text())
        return last - first


class ConstantPolicy(Policy):
    """Takes ``inference_ms`` and answers every observation with the same chunk."""

    def __init__(self, inference_ms: float, clock: Clock) -> None:
        cameras = ("agentview", "wrist")
        self.spec = PolicySpec("constant", DELTA_EEF_POSE, cameras=cameras, image_size=(256, 256), horizon=CHUNK)
        self._seconds, self._clock = inference_ms / 1000, clock

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return the chunk for each observation; one forward pass serves the batch."""
        self._clock.tick()
        time.sleep(self._seconds)
        return np.stack([ACTIONS] * len(observations))


def bench(config: PeersBench) -> int:
    """Play both sides and print a Markdown table."""
    try:
        version = metadata.version("vla-eval")
    except metadata.PackageNotFoundError:
        version = "missing"
    if version != VLA_EVAL:
        raise UserError(f"vla-eval is {version} here: run `pip install --no-deps vla-eval=={VLA_EVAL}`.")
    with tempfile.TemporaryDirectory() as folder:
        before = _cpu_s()
        peer = _peer(config, Path(folder))
        between = _cpu_s()
        ours = _ours(config, Path(folder))
        cpu_s = {"peer": between - before, "ours": _cpu_s() - between}
    if peer["steps"] != ours["steps"]:
        raise RunFailed(f"The sides played {peer['steps']} and {ours['steps']} steps, so their times do not compare.")
    print("|  | vla-eval | ours | ratio |\n|---|--:|--:|--:|")
    hourly = {name: 3600 * side["episodes"] / side["wall_s"] for name, side in (("peer", peer), ("ours", ours))}
    for label, left, right, factor in (
        ("wall time, s", peer["wall_s"], ours["wall_s"], peer["wall_s"] / ours["wall_s"]),
        ("wall time while playing, s", peer["playing_s"], ours["playing_s"], peer["playing_s"] / ours["playing_s"]),
        ("processor time, s", cpu_s["peer"], cpu_s["ours"], cpu_s["peer"] / cpu_s["ours"]),
        ("frames rendered", peer["frames"], ours["frames"], peer["frames"] / ours["frames"]),
        ("episodes an hour", hourly["peer"], hourly["ours"], hourly["ours"] / hourly["peer"]),
    ):
        print(f"| {label} | {left:,.0f} | {right:,.0f} | {factor:.1f}x |")
    print(f"\n{config}; {ours['episodes']} episodes, {ours['steps']} steps on each side.")
    return 0


def _peer(config: PeersBench, folder: Path) -> dict[str, Any]:
    """Return what vla-eval took: its server first, then a process for each shard, all at once."""
    clock = folder / "peer.clock"
    server = _start("server", config, str(clock))
    try:
        _wait_for_port(server)
        begin = time.perf_counter()
        outs = [folder / f"shard{number}.json" for number in range(config.workers)]
        shards = [_start("shard", config, str(number), str(out)) for number, out in enumerate(outs)]
        if any(shard.wait() for shard in shards):
            raise RunFailed("vla-eval failed; its output is above.")
        wall = time.perf_counter() - begin
    finally:
        server.kill()
        server.wait()
    parts = [json.loads(out.read_text()) for out in outs]
    counted = {name: sum(part[name] for part in parts) for name in ("episodes", "steps", "frames")}
    return counted | {"wall_s": wall, "playing_s": Clock.seconds(clock)}


def _ours(config: PeersBench, folder: Path) -> dict[str, Any]:
    """Return what the evaluation command took."""
    begin = time.perf_counter()
    clock = folder / "ours.clock"
    if _start("ours", config, str(folder / "ours"), str(clock)).wait():
        raise RunFailed("Our side failed; its output is above.")
    wall = time.perf_counter() - begin
    summary = json.loads((folder / "ours" / "summary.json").read_text())
    counted = {"episodes": summary["trials"], "steps": summary["env_steps"], "frames": summary["frames"]}
    return counted | {"wall_s": wall, "playing_s": Clock.seconds(clock)}


def _cpu_s() -> float:
    """Return the processor's seconds of all processes that this one has started and waited for, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _start(side: str, config: PeersBench, *arguments: str) -> subprocess.Popen[bytes]:
    """Start this file as one of the processes below."""
    words = [sys.executable, str(Path(__file__).resolve()), side, json.dumps(asdict(config)), *arguments]
    return subprocess.Popen(words, stdout=sys.stderr)


def _wait_for_port(server: subprocess.Popen[bytes]) -> None:
    import socket

    for _ in range(600):
        if server.poll() is not None:
            raise RunFailed("vla-eval's server ended; its output is above.")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                return
        time.sleep(0.1)
    raise RunFailed("vla-eval's server did not open its port within a minute.")


def run_ours(config: PeersBench, out: str, clock: str) -> int:
    """Play our side with the evaluation command itself."""
    from vla_harness.eval.run_libero import main
    from vla_harness.protocols import PROTOCOLS
    from vla_harness.registry import POLICIES

    os.environ["PEERS_INFERENCE_MS"], os.environ["PEERS_CLOCK"] = str(config.inference_ms), clock
    POLICIES["constant"] = "vla_harness.eval.bench.peers:constant_policy"
    card = PROTOCOLS["openvla-oft"]
    PROTOCOLS[card.name] = replace(card, max_steps={config.suite: config.steps}, actions_per_inference=CHUNK)
    tasks = ",".join(map(str, range(config.tasks)))
    words = ["--suite", config.suite, "--policy", "constant", "--protocol", card.name, "--tasks", tasks]
    words += ["--trials", str(config.states), "--workers", str(config.workers), "--assets", config.assets]
    return main([*words, "--out", out])


def constant_policy() -> ConstantPolicy:
    """Return the policy of ``run_ours``; the registry calls it."""
    return ConstantPolicy(float(os.environ["PEERS_INFERENCE_MS"]), Clock(Path(os.environ["PEERS_CLOCK"])))


def run_server(config: PeersBench, clock_file: str) -> int:
    """Serve the constant policy as vla-eval's own model server."""
    from vla_eval.model_servers.predict import PredictModelServer
    from vla_eval.model_servers.serve import serve

    clock = Clock(Path(clock_file))

    class Constant(PredictModelServer):
        def predict(self, obs: Any, ctx: Any) -> dict[str, Any]:
            clock.tick()
            time.sleep(config.inference_ms / 1000)
            return {"actions": ACTIONS}

        def get_action_spec(self) -> dict[str, Any]:
            return {}

        def get_observation_spec(self) -> dict[str, Any]:
            return {}

        def get_observation_params(self) -> dict[str, Any]:
            return {"send_wrist_image": True, "send_state": True}

    serve(Constant(chunk_size=CHUNK), host="127.0.0.1", port=PORT)
    return 0


def run_shard(config: PeersBench, number: str, out: str) -> int:
    """Play one shard with vla-eval's orchestrator, and count the frames that robosuite draws."""
    import anyio

    from vla_harness.envs.assets import resolve_assets
    from vla_harness.envs.gl import choose_gl_backend
    from vla_harness.envs.libero.stock import import_libero

    source = resolve_assets(config.assets)
    choose_gl_backend()
    import_libero(source.path)  # the stock packages, kept from asking questions and downloading
    from robosuite.utils.binding_utils import MjSim
    from vla_eval.orchestrator import Orchestrator

    frames = 0
    draw = MjSim.render

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal frames
        frames += 1
        return draw(*arguments, **options)

    MjSim.render = counted
    entry = {
        "benchmark": "vla_eval.benchmarks.libero.benchmark:LIBEROBenchmark",
        "episodes_per_task": config.states,
        "max_tasks": config.tasks,
        "max_steps": config.steps,
        "params": {"suite": f"libero_{config.suite}", "seed": 7, "env_seed": 0},
    }
    with tempfile.TemporaryDirectory() as folder:
        settings = {"server": {"url": f"ws://127.0.0.1:{PORT}"}, "output_dir": folder, "benchmarks": [entry]}
        shards = {} if config.workers == 1 else {"shard_id": int(number), "num_shards": config.workers}
        orchestrator = Orchestrator(settings, no_save=True, **shards)
        results: list[Mapping[str, Any]] = anyio.run(orchestrator.run)
    episodes = [episode for result in results for task in result["tasks"] for episode in task["episodes"]]
    failed = [episode for episode in episodes if episode.get("failure_reason")]
    if failed:
        raise RunFailed(f"An episode of vla-eval failed: {failed[0].get('failure_detail')}")
    counts = {"episodes": len(episodes), "steps": sum(episode["steps"] for episode in episodes), "frames": frames}
    Path(out).write_text(json.dumps(counts), encoding="utf-8")
    return 0


SIDES: dict[str, Callable[..., int]] = {"server": run_server, "shard": run_shard, "ours": run_ours}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark, or with the name of a side first, one of its processes. Returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in SIDES:
        config = PeersBench(**json.loads(words[1]))
        return run_command(lambda: SIDES[words[0]](config, *words[2:]))
    return run_command(lambda: bench(parse_options(PeersBench, words, "peers.py")))
