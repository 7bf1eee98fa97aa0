"""``python -m cv_superpoint``: the command line."""

from cv_superpoint.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
