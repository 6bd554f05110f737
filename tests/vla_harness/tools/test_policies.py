"""What ``vla-harness policies`` says."""

from __future__ import annotations

import pytest

from vla_harness.__main__ import main
from vla_harness.registry import ACTION, POLICIES, available_policies, policy_options


def test_the_policies_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICIES, "hollow", "torch_that_is_not_there:Policy")
    assert main(["policies"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in available_policies():
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert len(line.split()) > 3, f"{name} has no summary"
    assert "The policy 'hollow' needs torch_that_is_not_there, which is not installed" in "\n".join(lines)


@pytest.mark.parametrize("name", available_policies())
def test_every_option_has_its_type_default_and_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policies", name]) == 0
    text = capsys.readouterr().out
    for option in policy_options(name).values():
        if option.name != ACTION:
            assert option.help and option.help.split()[0] in text
    assert "None (default: none)" in text or name not in ("tformer", "groot")


def test_how_an_option_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    main(["policies", "openvla"])
    text = capsys.readouterr().out
    assert "\n--checkpoint VALUE   str (required)\n    A folder or hub id, such as openvla/" in text
    assert "\n--policy-option cameras=VALUE   several of str (default: agentview,wrist)\n" in text
    assert "\n--policy-option attn=VALUE   one of auto, sdpa, flash (default: auto)\n" in text
    main(["policies", "tformer"])
    assert "--policy-option execute=VALUE   int (at least 1) or None (default: none)" in capsys.readouterr().out
    assert main(["policies", "nobody"]) == 2
    assert capsys.readouterr().err.startswith("error: There is no policy 'nobody': choose one of tformer, ")
