"""Writing a checkpoint so that it is complete or absent: shards, journal, checksums, output directory."""
