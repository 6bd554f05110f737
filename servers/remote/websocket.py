"""The websocket servers of openpi and vla-eval as policies, fed as those projects feed LIBERO.

Sources: Physical-Intelligence/openpi ``examples/libero/main.py``, vla-eval 0.8.0 ``benchmarks/libero``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from vla_harness.conventions import orient
from vla_harness.errors import ConventionError
from vla_harness.types import DELTA_EEF_POSE, ActionConvention, ImageOrientation, Observation, PolicySpec, Rotation

from ..client import ServerError
from ..core.client_conventions import LIBERO_STATE, OPENPI, VLA_EVAL, canonical_axis_angle, fits_libero
from ..core.images import fit
from ..core.questions import blank_observation
from .memories import EpisodeMemories, joined
from .metadata import MAX_HORIZON, client_images, provenance_of, read_spec, table
from .websocket_clients import EpisodeBroken, OpenpiClient, VlaEvalClient

_CONNECTIONS = 16
_ROTATIONS: dict[str, Rotation] = {
    "axis_angle": "axis_angle",
    "euler_xyz": "euler_xyz",
    "quaternion_xyzw": "quat_xyzw",
    "rot6d": "rot6d",
}
_GRIPPERS = {  # vla-eval's name -> (open, closed)
    "binary_close_positive": (-1.0, 1.0),
    "binary_close_negative": (1.0, -1.0),
    "binary_close_01": (0.0, 1.0),
}


class _Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=_Closable)


class _PerEpisode(Generic[C]):
    """A connection for each episode that is being played, because these servers' memory is the connection's."""

    def __init__(self, open_client: Callable[[], C]) -> None:
        self._open = open_client
        self._clients: dict[str, C] = {}
        self._threads = ThreadPoolExecutor(_CONNECTIONS, "remote")

    def ask(
        self, observations: Sequence[Observation], one: Callable[[C, Observation], np.ndarray | None]
    ) -> np.ndarray:
        """Return the answers to all of them, asked at once; the first that fails raises, EpisodesLost for a None."""
        return joined(list(self._threads.map(lambda o: one(self.client(o.episode), o), observations)))

    def client(self, episode: str) -> C:
        """Return the episode's connection."""
        if episode not in self._clients:
            self._clients[episode] = self._open()
        return self._clients[episode]

    def drop(self, episode: str, last: Callable[[C], None] = lambda client: None) -> None:
        """Close the episode's connection, after ``last``."""
        client = self._clients.pop(episode, None)
        if client is not None:
            last(client)
            client.close()


class OpenpiRemote:
    """openpi's server. Real ones do not say what they read: LIBERO's is assumed, and one question tells the horizon."""

    def __init__(self, url: str, token: str | None, timeout_s: float, patience_s: float) -> None:
        self._url = url
        self._pool = _PerEpisode(lambda: OpenpiClient(url, token, timeout_s, patience_s))
        first = OpenpiClient(url, token, timeout_s, patience_s)
        said = first.metadata
        self._ours = said.get("server") == "vla-harness"
        if self._ours:
            own = read_spec(said, url)
            action = OPENPI.action if fits_libero(own) else own.action  # the server converts
            self.spec = replace(own, action=action, max_batch=min(own.max_batch, _CONNECTIONS))
            self._images: ImageOrientation = client_images(said, url)
            self.provenance: Mapping[str, Any] = provenance_of(said, url)
            self._memories = EpisodeMemories(url, said)
        else:
            self._images = OPENPI.images
            self.spec = PolicySpec(
                "openpi",
                OPENPI.action,
                cameras=tuple(OPENPI.cameras.values()),
                image_orientation=OPENPI.images,
                state_keys=LIBERO_STATE,
                max_batch=_CONNECTIONS,
                protocol="openpi",
                image_path="mirrored, resized with padding to 224",
            )
            self.provenance = {"server": url, "server_metadata": said}
            blank = blank_observation(self.spec)
            assert blank is not None
            self.spec = replace(self.spec, horizon=len(self._chunk(first, blank)["actions"]))
        first.close()

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, horizon, 7) float32; raises ServerError, and EpisodesLost."""
        return self._pool.ask(observations, self._ask)

    def forget(self, episode: str) -> None:
        """Close the episode's connection."""
        self._pool.drop(episode)
        if self._ours:
            self._memories.drop(episode)

    def _ask(self, client: OpenpiClient, seen: Observation) -> np.ndarray | None:
        """Return (horizon, dim) float32, or None when the server has lost what it remembered of the episode."""
        reply = self._chunk(client, seen)
        if self._ours:
            if self._memories.restarted(reply):
                self._memories.check_policy(client.metadata)
            if self._memories.is_lost(seen.episode, seen.step, reply):
                return None
        chunk: np.ndarray = reply["actions"]
        return chunk

    def _chunk(self, client: OpenpiClient, seen: Observation) -> dict[str, Any]:
        """Return the server's reply, with (horizon, dim) float32 ``actions``; raises ServerError."""
        message: dict[str, Any] = {"prompt": seen.instruction}
        names = list(self.spec.cameras if self._ours else OPENPI.cameras)
        for name, camera in zip(names, self.spec.cameras, strict=True):
            frame = orient(seen.images[camera], "upright", self._images)
            message[f"observation/{name}"] = frame if self._ours else fit(frame, OPENPI.image_size)
        if self.spec.state_keys:
            message["observation/state"] = seen.state
        if self._ours:
            message |= {"episode": seen.episode, "step": seen.step, "state_keys": list(self.spec.state_keys)}
        reply = client.infer(message)
        actions, wanted = reply["actions"], self.spec.action.dim
        fits = isinstance(actions, np.ndarray) and actions.ndim == 2 and actions.shape[1] == wanted
        if not fits or not 1 <= len(actions) <= MAX_HORIZON or actions.dtype.kind not in "fiu":
            shape = getattr(actions, "shape", type(actions).__name__)
            raise ServerError(f"{self._url} answered actions of shape {shape}, not (horizon, {wanted}).")
        return reply | {"actions": actions.astype(np.float32)}


class VlaEvalRemote:
    """One of vla-eval's model servers, which answers with one action. It must say what its actions mean."""

    def __init__(self, url: str, token: str | None, timeout_s: float, patience_s: float) -> None:
        address = f"{url}{'&' if '?' in url else '?'}token={token}" if token else url
        self._url = url
        self._pool = _PerEpisode(lambda: VlaEvalClient(address, None, timeout_s, patience_s))
        first = VlaEvalClient(address, None, timeout_s, patience_s)
        self.spec = _vla_eval_spec(first.hello, url)
        self.provenance: Mapping[str, Any] = {"server": url, "server_hello": first.hello}
        gripper = _part(table(first.hello, "action_spec", url, optional=True), "gripper", url)
        self._closes_at_zero = gripper.get("format") == "binary_close_positive"
        self._keeps_sign = bool(table(first.hello, "observation_params", url, optional=True).get("quat_no_antipodal"))
        self._started: set[str] = set()
        first.close()

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, 1, action_dim) float32; raises ServerError, and EpisodesLost."""
        return self._pool.ask(observations, self._ask)

    def forget(self, episode: str) -> None:
        """End the episode and close its connection."""
        self._started.discard(episode)
        self._pool.drop(episode, lambda client: client.end_episode({"metrics": {}, "steps": 0, "elapsed_sec": 0.0}))

    def _ask(self, client: VlaEvalClient, seen: Observation) -> np.ndarray | None:
        """Return (1, action_dim) float32, or None when the connection broke within the episode."""
        if seen.episode not in self._started:
            self._started.add(seen.episode)
            client.start_episode({"task": {"name": seen.instruction}, "episode": seen.episode})
        frames = {camera: orient(seen.images[camera], "upright", VLA_EVAL.images) for camera in self.spec.cameras}
        message: dict[str, Any] = {"images": frames, "task_description": seen.instruction}
        if self.spec.state_keys:
            message["states"] = seen.state if self._keeps_sign else _without_sign(seen.state)
        try:
            action = np.array(client.act(message).get("actions"), np.float32)
        except EpisodeBroken:
            return None
        except (TypeError, ValueError):
            raise ServerError(f"{self._url} answered an action that is no list of numbers.") from None
        if action.shape != (self.spec.action.dim,):
            raise ServerError(f"{self._url} answered an action of shape {action.shape}, not ({self.spec.action.dim},).")
        if action[-1] == 0.0 and self._closes_at_zero:
            action[-1] = 1.0  # vla-eval's LIBERO client closes at 0, which the middle of the two would not
        return action[None]


def _without_sign(state: np.ndarray) -> np.ndarray:
    """Return LIBERO's (8,) state with the rotation as vla-eval sends it to servers that do not ask for the sign."""
    return np.concatenate([state[:3], canonical_axis_angle(state[3:6]), state[6:]]).astype(np.float32)


def _part(spec: Mapping[str, Any], name: str, url: str) -> Mapping[str, Any]:
    return table(spec, name, url, optional=True)


def _vla_eval_spec(hello: Mapping[str, Any], url: str) -> PolicySpec:
    """Return what a model server says it reads and writes; raises ConventionError for what it leaves open."""
    said = table(hello, "action_spec", url, optional=True)
    formats = {name: _part(said, name, url).get("format") for name in ("position", "rotation", "gripper")}
    delta = formats["position"] == "delta_xyz"
    known = str(formats["position"]) in ("delta_xyz", "absolute_xyz")
    if not known or str(formats["rotation"]) not in _ROTATIONS or str(formats["gripper"]) not in _GRIPPERS:
        raise ConventionError(
            f"The model server at {url} states its actions as {formats}, which cannot be joined to an environment:"
            " its get_action_spec must name position, rotation and gripper formats that vla-eval defines."
        )
    opened, closed = _GRIPPERS[str(formats["gripper"])]
    action = ActionConvention(
        "delta" if delta else "absolute",
        DELTA_EEF_POSE.translation_unit if delta else 1.0,
        _ROTATIONS[str(formats["rotation"])],
        DELTA_EEF_POSE.rotation_unit if delta else 1.0,
        opened,
        closed,
        gripper_binary=True,
    )
    reads = table(hello, "observation_spec", url, optional=True)
    wishes = table(hello, "observation_params", url, optional=True)
    state = _part(reads, "state", url).get("format")
    if state not in (None, "eef_pos3_axisangle3_gripper2"):
        raise ConventionError(
            f"The model server at {url} reads the state as {state}, which no environment here reports."
        )
    wrist = ("wrist",) if "wrist" in reads or wishes.get("send_wrist_image") else ()
    return PolicySpec(
        str(hello.get("model_server", "vla-eval")),
        action,
        cameras=("agentview", *wrist),
        image_size=VLA_EVAL.image_size,
        image_orientation=VLA_EVAL.images,
        state_keys=LIBERO_STATE if state or wishes.get("send_state") else (),
        max_batch=_CONNECTIONS,
        protocol=protocol if isinstance(protocol := hello.get("evaluation_protocol"), str) else None,
        image_path="mirrored; the rest is the server's",
    )
