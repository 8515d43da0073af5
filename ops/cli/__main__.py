"""Lets ``python -m ops.cli`` stand for the console script, as the worker's children use it."""

from ops.cli import main

if __name__ == "__main__":
    main()
