"""``python -m cv_superpoint.evaluation``: the same command as ``python -m train evaluate``."""

from __future__ import annotations

import logging

from cv_superpoint.evaluation.run import main

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    raise SystemExit(main())
