"""Episodes whose memory a server lost are noticed by our clients, and played again by the engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.servers.toys import LookingPolicy, RememberingPolicy, native, observation, serving, url
from vla_harness.errors import EpisodesLost
from vla_harness.servers.action_server import Server
from vla_harness.servers.client import ServerError, connect
from vla_harness.servers.remote.policy import RemotePolicy
from vla_harness.types import Policy

Address = Callable[[Server], str]
ADDRESSES = {
    "native": url,
    "openpi": lambda server: f"ws://127.0.0.1:{server.port}/openpi",
    "vla-eval": lambda server: f"ws://127.0.0.1:{server.port}/vla-eval",
}


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_an_episode_whose_server_was_started_again_is_lost(address: Address) -> None:
    with serving(RememberingPolicy()) as server:
        port = server.port
        remote = RemotePolicy(address(server), patience_s=10)
        remote.act([observation(0, "a")])
        np.testing.assert_array_equal(remote.act([observation(1, "a")])[0, 0], np.full(7, 2))
    with serving(RememberingPolicy(), port=port):
        with pytest.raises(EpisodesLost, match="the server lost what its policy remembered") as raised:
            remote.act([observation(2, "a")])
        assert raised.value.chunks == [None]
        remote.forget("a")
        for step in range(2):  # played again
            np.testing.assert_array_equal(remote.act([observation(step, "a")])[0, 0], np.full(7, step + 1))
        remote.forget("a")


def test_an_episode_that_was_dropped_for_others_is_lost_and_its_neighbours_are_not() -> None:
    with serving(RememberingPolicy()) as server:
        server.service._sessions._limit = 2
        remote = RemotePolicy(url(server), patience_s=5)
        for name in ("a", "b", "c"):
            remote.act([observation(0, name)])
        with pytest.raises(EpisodesLost) as raised:
            remote.act([observation(1, "c"), observation(1, "a")])
        kept, lost = raised.value.chunks
        assert lost is None and kept is not None
        np.testing.assert_array_equal(kept, np.full((1, 7), 2))


@pytest.mark.parametrize("address", list(ADDRESSES.values())[:2], ids=list(ADDRESSES)[:2])
def test_a_policy_that_remembers_nothing_goes_on_after_a_restart_unless_it_is_another(address: Address) -> None:
    with serving(LookingPolicy()) as server:
        port = server.port
        remote = RemotePolicy(address(server), patience_s=10)
        first = remote.act([observation(1, "a")])
    with serving(LookingPolicy(), port=port):
        np.testing.assert_array_equal(remote.act([observation(1, "a")]), first)
    with (
        serving(LookingPolicy(horizon=5), port=port),
        pytest.raises(ServerError, match=r"started again with another policy|not \(3, 7\)"),
    ):
        remote.act([observation(1, "a")])


def test_a_name_that_is_used_again_from_step_0_is_another_episode() -> None:
    policy = RememberingPolicy()
    with serving(policy) as server, connect(url(server)) as client:
        counts = [client.act_together([native(step, episode="a")])[0, 0, 0] for step in (0, 8, 16, 0, 8)]
        reply = client.ask_together([native(9, episode="a")])
    assert counts == [1, 2, 3, 1, 2] and reply["incarnation"] == server.service.incarnation


def test_one_connection_keeps_the_names_of_few_episodes() -> None:
    from vla_harness.servers.protocols.openpi import _EPISODES
    from vla_harness.servers.remote.websocket_clients import OpenpiClient

    policy: Policy = RememberingPolicy()
    assert isinstance(policy, RememberingPolicy)
    seen = observation()
    message = {
        "observation/agentview": seen.images["agentview"],
        "observation/wrist": seen.images["wrist"],
        "observation/state": seen.state,
    }
    with serving(policy) as server:
        client = OpenpiClient(f"ws://127.0.0.1:{server.port}/openpi")
        for number in range(_EPISODES + 20):
            client.infer(message | {"episode": f"episode {number}", "step": 0})
        assert len(policy.counts) == len(server.service._sessions) == _EPISODES
        client.close()
