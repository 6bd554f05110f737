"""robosuite 1.4.0's own tasks: suites, initial states, environments and scenes."""
