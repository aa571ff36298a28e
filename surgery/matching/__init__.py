"""What tells which tensor is which: names, structure, forms of one weight, and values where nothing else does."""
