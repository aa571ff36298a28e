"""What every room of surgery stands on: compiled loops, arrays, threads, memory budgets, progress, atomic files."""
