"""Experts that solve simulated tasks from the simulator's own state, with the robot's own action space."""
