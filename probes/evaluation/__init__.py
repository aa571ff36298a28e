"""What models answer: generation, judges, rates with intervals."""
