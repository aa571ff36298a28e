"""A probe in tasks, which one process does one after another and the workers of an engine at the same time."""
