"""``cv-superpoint evaluate`` within this process."""

from __future__ import annotations

from cv_superpoint import cli


def main(arguments: list[str]) -> int:
    """Its exit code."""
    return cli.main(["evaluate", *arguments])
