"""``cv-superpoint train``: hands its arguments to the training program."""

from __future__ import annotations

from dataclasses import dataclass

from cv_superpoint.cli.output import Output


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train weights of your own; the arguments are those of python -m train (extra [train])."""

    def run(self, output: Output) -> int:
        """Never called: the arguments are handed on before they are parsed."""
        raise AssertionError(output)
