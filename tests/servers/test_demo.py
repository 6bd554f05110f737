"""The web page, clicked in a real browser; the episode behind it is LIBERO's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gradio
import numpy as np
import pytest

from tests.servers.chromium import opened
from tests.servers.toys import LookingPolicy, frame
from vla_harness.servers.demo import chunk_figure, make_page, one_action
from vla_harness.servers.live_rollout import LiveRollout

STATUS = "document.querySelector('#status textarea').value"


def button(name: str) -> str:
    """Return the last of that name: Gradio keeps a hidden copy of the tabs before them, to measure."""
    return f"[...document.querySelectorAll('button')].filter(b => b.textContent.trim() === '{name}').pop()"


@pytest.fixture
def url() -> Iterator[str]:
    page = make_page(LookingPolicy(), steps=6)
    page.queue()
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, share=False, server_name="127.0.0.1")
    yield address
    page.close()


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
