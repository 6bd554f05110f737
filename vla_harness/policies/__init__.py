"""The policies that the harness brings along; ``vla_harness.registry`` knows them by name."""
