"""Makes the table of families importable, as the benchmark does."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
