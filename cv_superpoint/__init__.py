"""SuperPoint keypoints and descriptors behind the interface of cv2.SIFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cv_superpoint import _renamed
from cv_superpoint import opencv_check as _opencv_check  # noqa: F401  # before OpenCV is needed
from cv_superpoint.decoding import Decoding
from cv_superpoint.detector.features import Features
from cv_superpoint.errors import FeatureError, PictureError, SuperPointError, require
from cv_superpoint.matching import MatchResult, match_features, match_pair
from cv_superpoint.matching.guided import guided_matches
from cv_superpoint.matching.nearest import mutual_nearest
from cv_superpoint.opencv.feature2d import SuperPointFeature2D
from cv_superpoint.pictures.depth import to_uint8
from cv_superpoint.weights import WeightsError, available_weights

if TYPE_CHECKING:
    from cv_superpoint.detector.module import SuperPoint, TensorFeatures
    from cv_superpoint.matching.lightglue import LightGlueMatcher

__version__ = "0.2.0"

_renamed.install()

__all__ = [
    "Decoding",
    "FeatureError",
    "Features",
    "LightGlueMatcher",
    "MatchResult",
    "PictureError",
    "SuperPoint",
    "SuperPointError",
    "SuperPointFeature2D",
    "TensorFeatures",
    "WeightsError",
    "__version__",
    "available_weights",
    "guided_matches",
    "match_features",
    "match_pair",
    "mutual_nearest",
    "to_uint8",
]


def __getattr__(name: str) -> Any:
    # torch takes a second to import: only programs that use the torch module import it.
    if name in ("SuperPoint", "TensorFeatures"):
        require("torch", "torch")
        from cv_superpoint.detector import module

        return getattr(module, name)
    if name == "LightGlueMatcher":  # and for the graphs of ONNX
        from cv_superpoint.matching.lightglue import LightGlueMatcher

        return LightGlueMatcher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
