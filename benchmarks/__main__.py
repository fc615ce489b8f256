"""``python -m benchmarks``: the engine at 1,000 to 1,000,000 open trades."""

from __future__ import annotations

from benchmarks.engine import main

if __name__ == "__main__":
    main()
