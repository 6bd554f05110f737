"""The web page, clicked in a real browser; the episode behind it is LIBERO's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio
import numpy as np
import pytest
import requests

from tests.servers.chromium import opened
from tests.servers.toys import LookingPolicy, frame
from vla_harness import load_policy
from vla_harness.servers.core.startup import listen
from vla_harness.servers.demo import Demo, chunk_figure, main, make_page, one_action, open_page
from vla_harness.servers.live_rollout import LiveRollout

TASKS = """[...document.querySelectorAll('input[aria-label="Task"]')].map(
    i => ({value: i.value, text: i.scrollWidth, width: i.clientWidth}))"""
LABELS = """[...document.querySelectorAll('%s label')].filter(
    label => label.getBoundingClientRect().width > 1).map(label => label.innerText)"""
STATUS = "document.querySelector('#status textarea').value"


def button(name: str) -> str:
    """Return the last of that name: Gradio keeps a hidden copy of the tabs before them, to measure."""
    return f"[...document.querySelectorAll('button')].filter(b => b.textContent.trim() === '{name}').pop()"


def free_port() -> int:
    with listen("127.0.0.1", 0) as listener:
        return listener.getsockname()[1]


@contextmanager
def shown(token: str | None = None) -> Iterator[str]:
    page = make_page(LookingPolicy(), assets="primitive", steps=6)
    port = free_port()
    open_page(page, "127.0.0.1", port, token)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        page.close()


@pytest.fixture
def url() -> Iterator[str]:
    with shown() as address:
        yield address


def test_a_rollout_is_watched_and_an_action_asked_for(url: str, tmp_path: Path) -> None:
    with opened(url, tmp_path / "profile") as page:
        page.wait_for(f"!!({button('Play')}) && !!document.querySelector('#status textarea')")
        page.run(f"{button('Play')}.click()")
        page.wait_for(f"{STATUS}.includes('step ')", 300)
        page.wait_for("!!document.querySelector('#frame img')")
        assert page.wait_for(f"{STATUS}.includes('after 6 steps') && {STATUS}", 300) == "failure after 6 steps"
        size = page.wait_for("(() => { const i = document.querySelector('#frame img'); return i.naturalWidth })()")
        assert size == 256
        page.screenshot(tmp_path / "demo.png")
        assert "Stand-in assets" in page.run("document.querySelector('#assets').innerText")
        for covering in ("#frame", "#actions"):  # Gradio lays a component's label over its picture
            assert page.run(LABELS % covering) == []
        for task in page.run(TASKS):
            assert task["text"] <= task["width"], task
        page.run(f"{button('One action')}.click()")
        page.wait_for(f"!!({button('Ask')})")
        page.run(f"{button('Ask')}.click()")
        page.wait_for("document.body.innerText.includes('Give an image and an instruction.')")
    assert (tmp_path / "demo.png").stat().st_size > 10_000


def test_one_action_is_the_policy_s_chunk() -> None:
    policy = LookingPolicy()
    text, figure = one_action(policy, frame(), "open the drawer", None)
    assert text.count("[") == 1 + policy.spec.horizon and len(figure.axes[0].lines) == 7
    with pytest.raises(gradio.Error, match="Give an image and an instruction"):
        one_action(policy, None, "open the drawer", None)
    assert len(chunk_figure(np.zeros((4, 3))).axes[0].lines) == 3


def test_a_rollout_that_cannot_be_played_says_so() -> None:
    (moment,) = LiveRollout(LookingPolicy(), "spatial", 0, 0, assets="/no/such/folder").moments()
    assert moment.frame is None and moment.sentence.startswith("The rollout failed: ")


def test_the_default_policy_answers_on_the_second_tab() -> None:
    policy = load_policy(Demo().policy)
    text, _ = one_action(policy, frame(), "pick up the black bowl and place it on the plate", None)
    assert text.count("[") == 1 + policy.spec.horizon


def test_a_token_is_the_page_s_password() -> None:
    with shown("geheim") as url:
        assert "actions so far" not in requests.get(url).text
        assert requests.get(f"{url}/config").status_code == 401
        join: Any = {"data": [], "fn_index": 0, "session_hash": "x"}
        assert requests.post(f"{url}/gradio_api/queue/join", json=join).status_code == 401
        assert requests.post(f"{url}/login", data={"username": "x", "password": "geheimx"}).status_code == 400
        with requests.Session() as session:
            assert session.post(f"{url}/login", data={"username": "x", "password": "geheim"}).ok
            assert session.get(f"{url}/config").ok


def test_an_address_beyond_this_machine_needs_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", "0.0.0.0"]) == 2
    assert capsys.readouterr().err.startswith("error: --host 0.0.0.0 is reached from other machines: give --token-file")
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 2
    assert capsys.readouterr().err == (
        f"error: Port {port} of 127.0.0.1 is in use: give another --port, or 0 for any free one.\n"
    )
