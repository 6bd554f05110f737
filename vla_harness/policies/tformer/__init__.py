"""The policy from scratch: tformer's network as a policy of the harness, and its checkpoints."""
