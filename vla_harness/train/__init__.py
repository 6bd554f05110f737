"""Training of policies: ``python -m vla_harness.train groot|openvla|tformer``."""
