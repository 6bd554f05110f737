"""Tools around a finished run: ``python -m vla_harness show|replay|merge|export|plan``."""
