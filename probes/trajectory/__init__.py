"""A training run's checkpoints: when refusals left, and how far each block had moved by then."""
