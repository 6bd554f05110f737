"""The policy from scratch is pushed to the hub, with a card: here to a server that speaks the hub's API."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from vla_harness.policies.tformer.policy import SHIPPED

REPOSITORY, COMMIT = "someone/bowl-mover", "89abcdef0123456789abcdef0123456789abcdef"
CODE = """
import sys
from pathlib import Path
from vla_harness.policies.tformer.hub import push_policy
print(push_policy(Path(sys.argv[1]), sys.argv[2], [{"step": 9, "action_l1": 0.25}]))
"""


class Hub(ThreadingHTTPServer):
    """Takes a commit of files that are small enough to lie in it."""

    def __init__(self, refuses: bool = False) -> None:
        self.files: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                path = self.path.partition("?")[0]
                if refuses or self.headers["Authorization"] != "Bearer hf_secret":
                    self.answer({"error": "Invalid credentials"}, 401)
                elif path == "/api/repos/create":
                    self.answer({"url": f"{hub.url}/{REPOSITORY}", "id": REPOSITORY})
                elif path == f"/api/models/{REPOSITORY}/preupload/main":
                    files = json.loads(body)["files"]
                    chosen = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
                    self.answer({"files": chosen})
                elif path == f"/api/models/{REPOSITORY}/commit/main":
                    for line in map(json.loads, body.splitlines()):
                        if line["key"] == "file":
                            hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                    self.answer({"commitUrl": f"{hub.url}/{REPOSITORY}/commit/{COMMIT}", "commitOid": COMMIT})
                else:
                    self.answer({}, 200 if path == "/api/validate-yaml" else 404)

            def do_GET(self) -> None:
                self.answer({"id": REPOSITORY, "sha": COMMIT, "siblings": []})

            def answer(self, content: object, status: int = 200) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        Thread(target=self.serve_forever, daemon=True).start()


def push(hub: Hub, folder: Path) -> subprocess.CompletedProcess[str]:
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_secret", "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-c", CODE, str(folder), REPOSITORY],
        env=os.environ | settings, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((SHIPPED / name).read_bytes())
    return tmp_path


def test_pushes_weights_configuration_and_a_card(checkpoint: Path) -> None:
    hub = Hub()
    done = push(hub, checkpoint)
    assert done.returncode == 0, done.stderr
    assert REPOSITORY in done.stdout
    assert set(hub.files) == {"README.md", "config.json", "model.safetensors"}
    for name in ("config.json", "model.safetensors"):
        assert hub.files[name] == (SHIPPED / name).read_bytes()
    card = hub.files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: vla-harness\n")
    assert "- pick up the butter and place it in the basket" in card
    assert "action_l1 0.25" in card
    assert "--policy tformer --checkpoint" in card


def test_says_in_one_sentence_that_the_hub_refused(checkpoint: Path) -> None:
    done = push(Hub(refuses=True), checkpoint)
    told = done.stderr.splitlines()[-1]
    assert "UserError: The hub did not take someone/bowl-mover (" in told and "401 Unauthorized" in told
    assert told.endswith("check the name and `hf auth login`.")


def test_a_training_that_cannot_be_pushed_is_refused_before_it_starts(tmp_path: Path) -> None:
    """Nothing listens at the endpoint: the hub's client raises an error of httpx or httpx2."""
    code = (
        "import sys\n"
        "from vla_harness.policies.tformer.hub import prepare_repository\n"
        "sys.modules['httpx'] = None  # which huggingface_hub 2 does not bring\n"
        "prepare_repository(sys.argv[1])"
    )
    settings = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_secret", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, REPOSITORY],
        env=os.environ | settings, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    told = done.stderr.splitlines()[-1]
    assert told.startswith("tformer.errors.UserError: The hub did not take someone/bowl-mover ("), done.stderr
    assert told.endswith("Connection refused): check the name and `hf auth login`.")
