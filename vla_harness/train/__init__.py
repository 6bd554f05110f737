"""Fine-tuning of vision-language-action policies: ``python -m vla_harness.train groot|openvla``."""
