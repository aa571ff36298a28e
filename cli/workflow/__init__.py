"""A case, the steps that fill it, and the engine that runs those that are missing."""
