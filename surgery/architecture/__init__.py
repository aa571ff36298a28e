"""Names and shapes in, sites out: what each tensor of a model is. Knows no file."""
