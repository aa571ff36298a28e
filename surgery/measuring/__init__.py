"""What is measured of pairs of tensors: sums, spectra, subspaces, and what chance alone would give."""
