"""What the documentation shows does what it says."""

from __future__ import annotations

import json
import math
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from tests.servers.toys import LookingPolicy, frame, serving, url
from vla_harness import load_policy
from vla_harness.servers.action_server import Server
from vla_harness.servers.core.service import ActionService
from vla_harness.servers.protocols.docs_page import docs_page
from vla_harness.types import DELTA_EEF_POSE, Policy, PolicySpec

COMMANDS = re.findall(
    r"```\n(curl .*?)\n```", (Path(__file__).parents[2] / "docs/server.md").read_text(encoding="utf-8"), re.DOTALL
)


class OneCameraPolicy(LookingPolicy):
    """Reads no state."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = PolicySpec("one camera", DELTA_EEF_POSE, cameras=("agentview",), horizon=3)


def run(command: str, server: Server, folder: Path) -> dict[str, object]:
    for name in ("agentview", "wrist", "frame"):
        Image.fromarray(frame()).save(folder / f"{name}.png")
    command = command.replace("http://127.0.0.1:8000", url(server))
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("command", "policy"),
    [(COMMANDS[0], load_policy("tformer")), (COMMANDS[1], OneCameraPolicy())],
    ids=["shipped policy", "one camera"],
)
def test_the_documented_commands_get_actions(command: str, policy: Policy, tmp_path: Path) -> None:
    with serving(policy) as server:
        reply = run(command, server, tmp_path)
        page = requests.get(f"{url(server)}/docs")
        shown = re.findall(r"<pre>(curl .*?)</pre>", page.text.replace("&quot;", '"'), re.DOTALL)
        wanted = next(one for one in shown if ("full_image" in one) == ("full_image" in command))
        assert run(wanted, server, tmp_path).keys() == reply.keys()
    actions = np.array(reply.get("actions", [reply.get("action")]))
    assert actions.shape == ((policy.spec.horizon, 7) if "actions" in reply else (1, 7))


def test_the_page_loads_nothing() -> None:
    with serving(LookingPolicy()) as server:
        page = requests.get(f"{url(server)}/docs")
        assert not re.search(r"<script|src=|<link|@import|url\(", page.text)
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
        description = requests.get(f"{url(server)}/openapi.json").json()
        for path in description["paths"]:
            assert path in page.text
        assert requests.get(f"{url(server)}/redoc").status_code == 404
    assert "<script" not in docs_page(description, 'http://localhost:1"><script>/')


def test_metadata_says_when_a_convention_is_unknown() -> None:
    policy = OneCameraPolicy()
    service = ActionService(policy)
    assert service.metadata()["action_convention"] == "stated"
    unknown = replace(DELTA_EEF_POSE, translation_unit=math.nan)
    policy.spec = replace(policy.spec, action=unknown)
    said = service.metadata()
    assert (said["action_convention"], said["spec"]["action"]["translation_unit"]) == ("unknown", None)
    service.close()
