"""The grid of the network's outputs over the image."""

from __future__ import annotations

CELL_SIZE = 8
"""Side of the square of pixels that one cell covers (paper, section 3.1)."""
