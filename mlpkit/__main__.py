"""`python -m mlpkit`: the command where the tree is on PYTHONPATH and nothing is installed."""

from .cli import main

if __name__ == "__main__":
    main()
