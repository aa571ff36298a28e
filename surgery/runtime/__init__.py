"""What all of surgery uses: compiled loops, arrays, threads, memory budgets, progress, atomic files."""
