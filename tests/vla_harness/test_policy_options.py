"""Options of policies, as ``load_policy`` and every command take them."""

from __future__ import annotations

from typing import Any

import pytest

from servers.action_server import ActionServer, bind_server
from servers.action_server import main as action_server
from servers.demo import main as demo
from vla_harness.errors import UserError
from vla_harness.policies.basic import NoopPolicy
from vla_harness.policy_flags import PolicyFlags, PolicyOrServerFlags
from vla_harness.registry import available_policies, load_policy, policy_options, typed_options


@pytest.mark.parametrize(
    ("policy", "pairs", "options"),
    [
        (
            "groot",
            ("denoising_steps=8", "tokenizer=/a=b", "compile=true", "prompt=train"),
            {"denoising_steps": 8, "tokenizer": "/a=b", "compile": True, "prompt": "train"},
        ),
        ("openvla", ("center_crop=false", "seed=3"), {"center_crop": False, "seed": 3}),
        ("openvla", ("cameras=agentview",), {"cameras": ("agentview",)}),
        ("openvla", ("cameras=wrist,agentview",), {"cameras": ("wrist", "agentview")}),
        ("tformer", ("execute=16",), {"execute": 16}),
        ("tformer", ("execute=none", "ensemble=0.5"), {"execute": None, "ensemble": 0.5}),
        ("scripted", ("noise=1",), {"noise": 1.0}),
    ],
)
def test_text_becomes_the_type_of_the_option(policy: str, pairs: tuple[str, ...], options: dict[str, Any]) -> None:
    assert typed_options(policy, pairs) == options


@pytest.mark.parametrize(
    ("policy", "pairs", "sentence"),
    [
        ("groot", ("denoising_steps",), "--policy-option denoising_steps has no value: give KEY=VALUE."),
        ("groot", ("tokenizer=",), "--policy-option tokenizer= has no value: give KEY=VALUE."),
        ("groot", ("denoising_steps=many",), "denoising_steps is int or None, and 'many' is none."),
        ("groot", ("denoising_steps=0",), "denoising_steps is 0: give at least 1."),
        ("groot", ("compile=perhaps",), "compile is 'perhaps': choose one of true, false."),
        ("groot", ("frames=hers",), "frames is 'hers': choose one of nvidia, lerobot."),
        ("openvla", ("attn=none",), "attn is 'none': choose one of auto, sdpa, flash."),
        ("openvla", ("cameras=agentview,,wrist",), "cameras is 'agentview,,wrist', which has an empty entry"),
        ("random", ("seed=banana",), "seed is int, and 'banana' is none."),
        ("random", ("seed=-1",), "seed is -1: give 0 to 4294967295."),
        ("tformer", ("ensemble=nan",), "ensemble is nan: give at least 0."),
        ("scripted", ("noise=2",), "noise is 2: give 0 to 1."),
        ("remote", ("timeout_s=0",), "timeout_s is 0: give more than 0, to 10000000."),
        (
            "tformer",
            ("checkpoint=here",),
            "checkpoint=here has a flag of its own: give --checkpoint here.",
        ),
        ("openvla", ("unnorm_key=x",), "has a flag of its own: give --unnorm-key x."),
        ("tformer", ("execute=4", "execute=4"), "--policy-option execute is given twice: give it once."),
        (
            "tformer",
            ("exceute=4",),
            "The policy 'tformer' has no option 'exceute'; its options: checkpoint, device,",
        ),
        ("noop", ("seed=1",), "The policy 'noop' has no option 'seed'; its options: none."),
        ("random", ("action=7",), "--policy-option action=7 is the environment's to say: leave it out."),
    ],
)
def test_a_wrong_option_is_one_sentence(policy: str, pairs: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        typed_options(policy, pairs)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("policy", "options", "sentence"),
    [
        ("openvla", {"cameras": "agentview"}, "cameras is several of str, and 'agentview' is none"),
        ("openvla", {"cameras": ()}, r"cameras is \(\), which is empty: give a value"),
        ("openvla", {"cameras": ("",)}, r"cameras is \('',\), which is empty: give a value"),
        ("openvla", {"unnorm_key": ""}, "unnorm_key is '', which is empty: give a value"),
        ("tformer", {"execute": "16"}, "execute is int or None, and '16' is none"),
        ("tformer", {"seed": True}, "seed is int, and True is none"),
        ("tformer", {"ensemble": float("inf")}, "ensemble is inf: give at least 0"),
        ("random", {"action": "joints"}, "action is ActionConvention or JointConvention, and 'joints' is none"),
        ("remote", {}, "needs the option 'url': give --policy-option url=VALUE"),
        ("replay", {}, "needs the option 'checkpoint': give --checkpoint"),
    ],
)
def test_python_is_told_the_same(policy: str, options: dict[str, Any], sentence: str) -> None:
    given = options if policy in ("remote", "replay") else {"checkpoint": "here"} | options
    if policy == "random":
        given = options
    with pytest.raises(UserError, match=sentence):
        load_policy(policy, **given)


def test_every_option_of_every_policy_has_a_type() -> None:
    untyped = [
        (name, key) for name in available_policies() for key, o in policy_options(name).items() if o.annotation is Any
    ]
    assert not untyped


def test_flags_and_pairs_are_the_arguments_of_load_policy() -> None:
    flags = PolicyFlags(policy="tformer", device="cpu", policy_option=("execute=4",))
    assert flags.policy_arguments() == {"device": "cpu", "execute": 4}
    assert PolicyOrServerFlags(server="http://here").chosen_policy() == ("remote", {"url": "http://here"})
    with pytest.raises(UserError, match=r"leave --checkpoint, .* to the command that started it"):
        PolicyOrServerFlags(server="http://here", policy_option=("execute=4",)).chosen_policy()


@pytest.mark.parametrize(
    ("command", "arguments", "sentence"),
    [
        (action_server, ["--policy-option", "execute=banana"], "execute is int or None, and 'banana' is none"),
        (action_server, ["--options", "execute=banana"], "execute is int or None, and 'banana' is none"),
        (action_server, ["--options", "checkpoint=x"], "has a flag of its own: give --checkpoint x"),
        (action_server, ["--options", "seed=1", "--policy-option", "seed=1"], "seed is given twice"),
        (action_server, ["--options", "unnorm_key=a", "--unnorm-key", "b"], "The unnorm key is given twice"),
        (demo, ["--policy-option", "execute=banana"], "execute is int or None, and 'banana' is none"),
        (demo, ["--server", "http://here", "--unnorm-key", "b"], "leave --checkpoint, --precision"),
    ],
)
def test_every_command_refuses_before_it_listens(
    command: Any, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(arguments) == 2
    said = capsys.readouterr()
    assert sentence in said.err and said.err.count("\n") == 1 and not said.out


def test_the_server_reads_both_spellings() -> None:
    for options in (
        ActionServer(port=0, options=("execute=16", "seed=3")),
        ActionServer(port=0, policy_option=("execute=16", "seed=3")),
    ):
        server = bind_server(options)
        server.listener.close()
        policy: Any = server.service.policy
        server.service.close()
        assert policy.spec.horizon == 16 and policy.provenance["seed"] == 3


def test_a_policy_that_takes_any_keyword_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class AnyPolicy(NoopPolicy):
        def __init__(self, **options: Any) -> None:
            super().__init__()
            self.given = options

    monkeypatch.setattr("vla_harness.registry._policy_class", lambda name: AnyPolicy)
    policy: Any = load_policy("any", one=1, two=["b"])
    assert policy.given == policy.options == {"one": 1, "two": ["b"]}
    assert typed_options("any", ["one=1"]) == {"one": "1"}
