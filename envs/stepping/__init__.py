"""Fast stepping of robosuite's operational-space-controlled arms, bit for bit equal to robosuite's own loop."""
