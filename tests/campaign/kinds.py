"""What a case is, and the register of kinds of cases."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np

import cv_superpoint
from cv_superpoint.errors import FeatureError, PictureError
from cv_superpoint.extract.plan import ExtractError
from cv_superpoint.files import WriteError
from cv_superpoint.files.guard import OverwriteError
from cv_superpoint.files.record import RecordError
from cv_superpoint.interop.checks import StoreError
from cv_superpoint.interop.stitching import StitchError
from cv_superpoint.matching.tracking import VideoError
from cv_superpoint.weights import WeightsError

ROOT = Path(cv_superpoint.__file__).parents[1]
DOCUMENTED = (
    *(FeatureError, PictureError, WeightsError, WriteError, OverwriteError, RecordError),
    *(ExtractError, StoreError, StitchError, VideoError),
)
KINDS: dict[str, Callable[[Case], None]] = {}
"""Kinds by name, in the order in which they take turns."""
EXAMPLES = 60
"""Examples of hypothesis in a case."""


class BrokenPromiseError(AssertionError):
    """A promise that was not kept."""


@dataclass(kw_only=True)
class Case:
    """One kind with one seed, from which everything in it follows.

    Attributes:
        kind: Name of the kind.
        seed: Seed of all that is drawn.
        folder: An empty one of its own.
        calls: Number of calls of the product so far.
        kills: Number of processes killed.
        random: Drawn from the seed.
        notes: What it did, for the report of a fault.
    """

    kind: str
    seed: int
    folder: Path
    calls: int = 0
    kills: int = 0
    skipped: str = ""
    notes: list[str] = field(default_factory=list)
    random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def choose(self, values: Any) -> Any:
        """One of a sequence, as it is."""
        return values[int(self.random.integers(len(values)))]

    def note(self, *values: Any) -> None:
        """Keep what was drawn."""
        self.notes.append(
            " ".join(
                text if len(text := str(each)) < 400 else text[:400] + "..." for each in values
            )
        )

    @contextmanager
    def call(self, *plain: type[Exception]) -> Iterator[None]:
        """A call of the product, which may end with a documented error.

        Args:
            *plain: Errors of Python that its documentation names; only those that the product
                raises itself are let through.
        """
        self.calls += 1
        try:
            yield
        except DOCUMENTED as error:
            check(bool(str(error).strip()), f"an error without a message: {error!r}")
        except plain as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            ours = Path(frame.filename).is_relative_to(ROOT) and ".venv" not in frame.filename
            check(ours, f"{type(error).__name__} of another library: {error}", error)

    def given(self, test: Callable[..., None], **strategies: Any) -> None:
        """Run a property of hypothesis; not shrunk, because the seed repeats it."""
        settings = hypothesis.settings(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            phases=(hypothesis.Phase.generate,),
            suppress_health_check=list(hypothesis.HealthCheck),
            print_blob=False,
        )
        settings(hypothesis.seed(self.seed)(hypothesis.given(**strategies)(test)))()


def kind(function: Callable[[Case], None]) -> Callable[[Case], None]:
    """Register a kind of case under its function's name."""
    KINDS[function.__name__] = function
    return function


def check(condition: Any, message: str, cause: BaseException | None = None) -> None:
    """Assert with a message that tells what was expected."""
    if not condition:
        raise BrokenPromiseError(message) from cause
