"""Detectors by name.

Anything with ``detectAndCompute(image, mask)`` can be evaluated. A name may carry options:
``sift(contrastThreshold=0.02)``, ``superpoint(nmsRadius=3)``, ``my.module:factory(size=2)``.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import cv2

from cv_superpoint.errors import SuperPointError
from cv_superpoint.evaluation.predictions import Feature2D

BUILT_IN = ("superpoint", "sift", "orb", "akaze", "harris")


class Harris:
    """Harris corners, as the paper compares its detector with; no descriptors.

    Args:
        quality: Lowest response, as a share of the strongest in the image.
        distance: Smallest distance of two corners, pixels.
        k: Constant of Harris' measure.
    """

    def __init__(self, quality: float = 1e-4, distance: float = 4.0, k: float = 0.04) -> None:
        self.quality, self.distance, self.k = quality, distance, k

    def descriptorSize(self) -> int:  # noqa: N802
        """0: there are no descriptors."""
        return 0

    def detect(self, image: Any, mask: Any = None) -> tuple[cv2.KeyPoint, ...]:
        """Corners with Harris' measure relative to the image's strongest as response."""
        corners, quality = cv2.goodFeaturesToTrackWithQuality(
            image, 0, self.quality, self.distance, mask, useHarrisDetector=True, k=self.k
        )[:2]
        if corners is None:
            return ()
        return tuple(
            cv2.KeyPoint(float(x), float(y), 3.0, -1.0, float(q))
            for (x, y), q in zip(corners.reshape(-1, 2), quality.reshape(-1), strict=True)
        )

    def detectAndCompute(  # noqa: N802
        self, image: Any, mask: Any = None
    ) -> tuple[tuple[cv2.KeyPoint, ...], None]:
        """The corners, and no descriptors."""
        return self.detect(image, mask), None


def split_names(texts: Sequence[str], what: str = "detectors") -> tuple[str, ...]:
    """Split "a,b(c=1,d=2) e" at commas and blanks outside brackets.

    Raises:
        ValueError: If a bracket has no partner or a name appears twice.
    """
    names, current, depth = [], "", 0
    for character in ",".join(texts) + ",":
        depth += (character in "([{") - (character in ")]}")
        if character in ", \t" and depth == 0:
            names.append(current)
            current = ""
        else:
            current += character
    if depth != 0:
        raise SuperPointError(f"brackets do not match in {' '.join(texts)!r}")
    names = [name for name in names if name]
    if len(set(names)) != len(names) or not names:
        raise SuperPointError(f"{what} must be named once each, got {' '.join(texts)!r}")
    return tuple(names)


def build_detector(spec: str, *, quota: int, weights: str | None = None) -> Feature2D:
    """Make a detector.

    Args:
        spec: superpoint, sift, orb, akaze, harris or ``module:factory``, options in brackets.
        quota: Keypoints that the protocol keeps at most. Only ORB gets it, because ORB shares its
            quota among pyramid levels and has no "all". Other detectors find all they can, and the
            protocol takes the strongest.
        weights: Weights of ``superpoint``.

    Raises:
        ValueError: If the name is not known, or the factory does not take the options.
    """
    name, options = _parse(spec)
    factories: dict[str, Callable[..., Any]] = {
        "superpoint": _superpoint,
        "sift": lambda **given: cv2.SIFT.create(**given),
        "orb": lambda **given: cv2.ORB.create(**{"nfeatures": quota, **given}),
        "akaze": _akaze,
        "harris": Harris,
    }
    if name == "superpoint" and weights is not None:
        options.setdefault("weights", weights)
    factory = _import_factory(name) if ":" in name else factories.get(name)
    if factory is None:
        known = ", ".join(BUILT_IN)
        raise SuperPointError(f"no detector is called {name!r}; use {known} or module:factory")
    try:
        detector = factory(**options)
    except (TypeError, cv2.error) as error:
        raise SuperPointError(f"cannot create {spec}: {error}") from error
    if not callable(getattr(detector, "detectAndCompute", None)):
        raise SuperPointError(f"{spec} made a {type(detector).__name__} without detectAndCompute")
    made: Feature2D = detector
    return made


def _parse(spec: str) -> tuple[str, dict[str, Any]]:
    """``name(key=literal, ...)`` -> name and options."""
    name, bracket, rest = spec.partition("(")
    if not bracket:
        return name, {}
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise SuperPointError("options need names")
        return name, {str(item.arg): ast.literal_eval(item.value) for item in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise SuperPointError(
            f"cannot read {spec!r}: write it as name(option=1, other=2)"
        ) from error


def _superpoint(**options: Any) -> Any:
    # Only when asked for: the classical detectors are evaluated without loading torch.
    import cv_superpoint

    return cv_superpoint.SuperPointFeature2D.create(**options)


def _akaze(**options: Any) -> Any:
    home = cv2 if hasattr(cv2, "AKAZE_create") else getattr(cv2, "xfeatures2d", None)
    if home is None:
        raise SuperPointError(
            f"OpenCV {cv2.__version__} has no AKAZE: 5.x moved it to its contrib modules; "
            "install opencv-contrib-python or an opencv-python of 4.x"
        )
    return home.AKAZE_create(**options)


def _import_factory(name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise SuperPointError(f"cannot import {name}: {error}") from error
    if not callable(factory):
        raise SuperPointError(
            f"{name} is not callable; name a function or class that makes a detector"
        )
    made: Callable[..., Any] = factory
    return made
