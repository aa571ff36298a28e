"""Checkpoints at URLs (`s3://bucket/model`, `https://host/model`): listed, and read by ranges of their files."""
