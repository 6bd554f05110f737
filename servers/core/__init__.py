"""What all protocols share: one policy, its queue, sessions, limits and counters."""
