"""Trios that the package makes on the spot."""
