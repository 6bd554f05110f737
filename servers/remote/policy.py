"""A policy on a server: ``load_policy("remote", url=…)``, and ``eval/run_libero.py --server URL``.

http, https: this project's server. ws, wss: openpi's or vla-eval's (or ours, which speaks both); tcp: GR00T's ZeroMQ.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tformer.values import PositiveDuration
from vla_harness.errors import UserError
from vla_harness.types import Observation, Policy

from ..client import AddressError, ServerError, check_address, keep_trying

TOKEN_VARIABLE = "VLA_SERVER_TOKEN"
SCHEMES = ("http", "https", "ws", "wss", "tcp")


class RemotePolicy(Policy):
    """Asks an action server.

    Its spec says what the server's policy reads and writes, so that a mismatch is refused at once.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        timeout_s: PositiveDuration = 60.0,
        patience_s: PositiveDuration = 60.0,
        data_config: str | None = None,
    ) -> None:
        """Ask the server what its policy reads and writes.

        Args:
            url: The server: http://, https://, ws://, wss:// or tcp://HOST:PORT.
            token: What the server asks for; None for $VLA_SERVER_TOKEN.
            timeout_s: Seconds for one answer.
            patience_s: Seconds for all attempts at one answer, with growing pauses.
            data_config: For a GR00T server with other names than LIBERO's: what they mean, a built-in data
                configuration or a .toml file.

        Raises UserError when there is no such server, and ConventionError when it does not say what its actions mean.
        """
        scheme = url.partition("://")[0].lower()
        shown = token or os.environ.get(TOKEN_VARIABLE) or None
        try:
            check_address(url, SCHEMES)
            self._remote = _open(scheme, url, shown, timeout_s, patience_s, data_config)
        except AddressError as error:
            raise UserError(str(error)) from None
        except ServerError as error:
            raise UserError(f"{str(error).rstrip('.')}: check --server, its token and that it runs.") from None
        self.spec = self._remote.spec
        if scheme == "tcp":  # asked by these names in an offline evaluation
            self.get_action, self.get_modality_config = self._remote.get_action, self._remote.get_modality_config

    def act(self, observations: Sequence[Observation]) -> np.ndarray:
        """Return (batch, horizon, action_dim) float32; raises ServerError when the server gives none."""
        return self._remote.act(observations)

    def forget(self, episode: str) -> None:
        """Tell the server that ``episode`` has ended."""
        self._remote.forget(episode)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Return the server's address, and what it says of its policy."""
        return self._remote.provenance


def _open(
    scheme: str, url: str, token: str | None, timeout_s: float, patience_s: float, data_config: str | None
) -> Any:
    if data_config is not None and scheme != "tcp":
        raise UserError("The option data_config is for GR00T's servers, tcp://HOST:PORT: leave it out.")
    if scheme in ("http", "https"):
        from .native import NativeRemote

        return NativeRemote(url, token, timeout_s, patience_s)
    if scheme in ("ws", "wss"):
        from .websocket import OpenpiRemote, VlaEvalRemote
        from .websocket_clients import speaks_first

        remote = OpenpiRemote if keep_trying(lambda: speaks_first(url, token), patience_s, url) else VlaEvalRemote
        return remote(url, token, timeout_s, patience_s)
    from .groot import Gr00tRemote

    return Gr00tRemote(url, token, timeout_s, patience_s, data_config)
