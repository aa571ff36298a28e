"""Other evaluation harnesses: their logs as completions, our completions as their logs, our prompts as their task."""

from vlsurgery.probes.harnesses.importing import ImportSpec, import_log, import_logs
from vlsurgery.probes.harnesses.inspect_writer import write_inspect_log

__all__ = ["ImportSpec", "import_log", "import_logs", "write_inspect_log"]
