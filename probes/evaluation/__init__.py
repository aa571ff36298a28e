"""Behaviour: generation, judges, rates with intervals, separation of classes."""
