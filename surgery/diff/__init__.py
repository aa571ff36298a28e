"""How far weights moved, and how two deltas relate, each with its null."""
