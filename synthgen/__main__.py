"""`synthgen` and `python -m synthgen`."""

from synthgen.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
