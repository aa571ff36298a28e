"""Writing a checkpoint so that it is complete or absent: shards, journal, checksums, output directory."""

from vlsurgery.surgery.writer.writer import Piece, ShardPlan, plan_shards, write

__all__ = ["Piece", "ShardPlan", "plan_shards", "write"]
