"""The options by which every command chooses its policy, as keyword arguments of ``load_policy``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg

from .errors import UserError
from .registry import OWN_FLAGS, available_policies, policy_options, typed_options

PolicyName = Annotated[str, arg(metavar=f"{{{','.join(available_policies())}}}")]
OWN = "(default: the policy's own)"


@dataclass(frozen=True, kw_only=True)
class PolicyFlags:
    """The policy of a command. A field's docstring is its help text."""

    policy: PolicyName = "tformer"
    """Policy that acts."""

    checkpoint: Annotated[str | None, arg(metavar="C", help_behavior_hint=OWN)] = None
    """What the policy is loaded from: a folder or hub id; for replay, the folder of an earlier run."""

    precision: Annotated[
        Literal["bf16", "fp32", "4bit", "8bit"] | None,
        arg(metavar="{bf16,fp32,4bit,8bit}", help_behavior_hint=OWN),
    ] = None
    """Number format of a network's weights."""

    device: Annotated[str | None, arg(metavar="auto|cpu|cuda|cuda:N", help_behavior_hint=OWN)] = None
    """Where a network runs; auto: on CUDA where there is one."""

    unnorm_key: Annotated[str | None, arg(metavar="KEY", help_behavior_hint=OWN)] = None
    """Data set whose statistics scale the actions of an OpenVLA; where it is absent, KEY_no_noops is taken."""

    policy_option: Annotated[
        tuple[str, ...], arg(metavar="KEY=VALUE", help_behavior_hint="(default: none)"), UseAppendAction
    ] = ()
    """Another option of the policy, as often as there are some, such as execute=4; several values have commas between.
    `vla-harness policies NAME` lists them."""

    def policy_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of ``load_policy`` that were given. Raises UserError for a bad one."""
        flags = {name: getattr(self, name) for name in OWN_FLAGS if getattr(self, name) is not None}
        return flags | typed_options(self.policy, self.policy_option)


@dataclass(frozen=True, kw_only=True)
class PolicyOrServerFlags(PolicyFlags):
    """The policy of a command that can also ask a server for actions."""

    server: Annotated[
        str | None, arg(metavar="URL", help_behavior_hint="(default: none; the policy runs in this process)")
    ] = None
    """Server whose policy acts: http://HOST:PORT (ours), ws:// (openpi's or vla-eval's), tcp:// (GR00T's). Its token is
    read from $VLA_SERVER_TOKEN."""

    def chosen_policy(self) -> tuple[str, dict[str, Any]]:
        """Return the policy's name and the keyword arguments of ``load_policy``; with --server, a remote policy's.

        Raises UserError for a bad option, and for options of the policy beside --server.
        """
        if self.server is None:
            if self.policy == "remote":
                raise UserError("--policy remote acts through a server: give --server URL alone.")
            return self.policy, self.policy_arguments()
        connection = policy_options("remote").keys() - {"url", "token"}
        options = {pair.partition("=")[0] for pair in self.policy_option}
        if any(getattr(self, name) is not None for name in OWN_FLAGS) or not options <= connection:
            raise UserError(
                "--server says whose policy acts: leave --checkpoint, --precision, --device, --unnorm-key and"
                f" --policy-option (but {', '.join(sorted(connection))}) to the command that started it."
            )
        return "remote", {"url": self.server, **typed_options("remote", self.policy_option)}
