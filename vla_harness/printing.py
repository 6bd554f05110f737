"""Showing text that comes from files of others on a terminal and in a picture."""

from tformer.printing import printable

__all__ = ["literal", "printable"]


def literal(text: str) -> str:
    """Return ``text`` so that matplotlib draws it as it is, dollar signs too, and steers nothing."""
    return printable(text).replace("$", r"\$")
