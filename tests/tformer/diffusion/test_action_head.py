"""The action head learns what regression cannot: two ways to act, each whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tformer.diffusion import ActionHead, ActionHeadConfig, SamplerConfig, two_ways
from tformer.diffusion.two_ways import (
    CONDITION_DIM,
    DIFFUSION,
    FLOW,
    HORIZON,
    KINDS,
    Kind,
    draw_demonstrations,
    head_config,
    judge,
    train_head,
)


def make_head(kind: Kind) -> ActionHead:
    torch.manual_seed(0)
    return ActionHead(head_config(kind))


@pytest.fixture(scope="module")
def trained() -> dict[Kind, ActionHead]:
    """One network per process; the samplers of a process share it."""
    heads: dict[Kind, ActionHead] = {}
    pairs: list[tuple[Kind, Kind]] = [("ddpm", "ddim"), ("euler", "midpoint")]
    for first, second in pairs:
        heads[first], heads[second] = make_head(first), make_head(second)
        train_head(heads[first])
        heads[second].load_state_dict(heads[first].state_dict())
    return heads


@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_are_learned_and_their_mean_is_not(trained: dict[Kind, ActionHead], kind: Kind) -> None:
    generator = torch.Generator().manual_seed(5)
    condition, shown = draw_demonstrations(256, generator)
    chunks = trained[kind].sample(condition, generator)  # (256, T, A)
    assert chunks.shape == shown.shape
    right, straight, error = judge(condition, chunks)
    assert 0.35 < right < 0.65
    assert straight < 0.1, "through the obstacle, which nobody showed"
    assert error < 0.05
    assert (chunks[..., 1] - 0.5).abs().mean() < 0.05


def test_the_mean_of_the_demonstrations_would_be_judged_a_failure() -> None:
    condition, shown = draw_demonstrations(256, torch.Generator().manual_seed(5))
    assert judge(condition, shown)[1:] == pytest.approx((0, 0), abs=1e-6)
    assert judge(condition, shown.mean(0, keepdim=True).expand_as(shown)).straight == 1


def test_padded_actions_are_neither_learned_nor_seen() -> None:
    head = make_head("ddim")
    for parameter in head.parameters():  # a fresh head answers zero whatever it sees
        torch.nn.init.normal_(parameter, std=0.2)
    condition, actions = draw_demonstrations(4, torch.Generator().manual_seed(0))
    mask = torch.ones(4, HORIZON)
    mask[:, 5:] = 0

    @torch.no_grad()
    def loss(actions: Tensor, mask: Tensor | None) -> Tensor:
        return head.loss(condition, actions, mask, generator=torch.Generator().manual_seed(1))

    other = actions.clone()
    other[:, 5:] += 3
    torch.testing.assert_close(loss(actions, mask), loss(other, mask))
    assert not torch.isclose(loss(actions, None), loss(other, None))
    torch.testing.assert_close(loss(actions, torch.ones(4, HORIZON)), loss(actions, None))
    assert loss(actions, torch.zeros(4, HORIZON)) == 0


def test_padded_observation_tokens_are_not_seen(trained: dict[Kind, ActionHead]) -> None:
    condition, _ = draw_demonstrations(4, torch.Generator().manual_seed(0))
    padded = torch.cat([condition, torch.full((4, 3, CONDITION_DIM), 9.0)], dim=1)
    mask = torch.tensor([[1, 1, 0, 0, 0]]).expand(4, -1)
    plain = trained["ddim"].sample(condition, torch.Generator().manual_seed(1))
    masked = trained["ddim"].sample(padded, torch.Generator().manual_seed(1), mask)
    torch.testing.assert_close(masked, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_depends_on_its_own_generator_only(trained: dict[Kind, ActionHead], kind: Kind) -> None:
    condition, _ = draw_demonstrations(3, torch.Generator().manual_seed(0))

    def generators(*rows: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(row) for row in rows]

    together = trained[kind].sample(condition, generators(0, 1, 2))
    alone = trained[kind].sample(condition[2:], generators(2))
    torch.testing.assert_close(together[2:], alone, rtol=1e-4, atol=1e-4)
    assert torch.equal(together, trained[kind].sample(condition, generators(0, 1, 2)))


def test_a_sampler_of_the_other_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="euler samples flow matching"):
        ActionHead(ActionHeadConfig(process=DIFFUSION, sampler=SamplerConfig("euler")))
    with pytest.raises(ValueError, match="ddim samples diffusion"):
        ActionHead(ActionHeadConfig(process=FLOW, sampler=SamplerConfig("ddim")))


def test_the_comparison_says_what_regression_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_ways, "train_head", lambda head, seed: train_head(head, 2, seed=seed))
    assert two_ways.main(["--out", str(tmp_path), "--seeds", "2", "--count", "50"]) == 0
    lines = (tmp_path / "two_ways.md").read_text().splitlines()
    assert "--seeds 2" in lines[0]
    assert lines[4].startswith("| demonstrations") and "| 0.0% … 0.0% | 0.000 … 0.000 |" in lines[4]
    assert lines[5].startswith("| regression") and "| 100.0% … 100.0% |" in lines[5]
    assert len(lines) == 10
    assert (tmp_path / "diffusion_two_ways.png").is_file()
