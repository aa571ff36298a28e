"""`vlsurgery merge`: `--auto`, `--method`, `--recipe`, and the last two as YAML for mergekit."""
