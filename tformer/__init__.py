"""The transformer and diffusion models written from scratch, with their generation and training commands."""
