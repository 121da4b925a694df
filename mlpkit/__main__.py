"""`python -m mlpkit`: the command where the tree is on PYTHONPATH and nothing is installed."""

from __future__ import annotations

import sys

try:
    from .cli import main
except ModuleNotFoundError as error:
    print(f"mlpkit: {error.name} is not installed: pip install {error.name}", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    main()
