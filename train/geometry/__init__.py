"""Plane geometry: homographies, points, image warps and valid masks."""
