"""Servers as policies: the other end, for rollouts."""
