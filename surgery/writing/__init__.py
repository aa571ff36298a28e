"""From bytes to a directory: planned, filled in parallel, journalled, complete under its name or not there."""
