"""Showing text that comes from files of others on a terminal."""

from tformer.printing import printable

__all__ = ["printable"]
