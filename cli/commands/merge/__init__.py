"""`vlsurgery merge`, by mode: `--auto`, `--method`, `--recipe`, and either of the latter as an order for mergekit."""
