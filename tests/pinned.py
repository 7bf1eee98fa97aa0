"""Options of tests that compare numbers, so that the outcome does not depend on the machine."""

from __future__ import annotations

FLOAT32 = {"device": "cpu", "precision": "float32"}
""""auto" takes a GPU where there is one, and bfloat16 where the CPU multiplies in it."""
PINNED = {**FLOAT32, "threads": 1}
"""And by default a detector takes a thread for every core, for which tests beside this one wait."""
