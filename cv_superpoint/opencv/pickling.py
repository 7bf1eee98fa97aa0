"""Detectors for other processes: their options and weights, of which each makes its own network."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cv_superpoint.backends import Backend, Choice, make_backend
from cv_superpoint.network.weights import NetworkWeights
from cv_superpoint.weights import LoadedWeights, WeightsError, available_weights, load_weights

if TYPE_CHECKING:
    from typing_extensions import Self

    from cv_superpoint.detector import Detector
    from cv_superpoint.detector.runtime import Runtime

_MOST_KEPT = 2
_kept: dict[tuple[str, Choice, int | None], Backend] = {}
"""The last networks of unpickled detectors: a pool's tasks bring the same detector again and again,
and making its network would take longer than running it."""


@dataclass(frozen=True, kw_only=True)
class _Bundled:
    """Weights that every installation of this release has.

    Attributes:
        name: Name of the set.
        sha256: SHA-256 of its file, hexadecimal.
    """

    name: str
    sha256: str

    def load(self) -> LoadedWeights:
        if self.name not in available_weights() or (
            (found := load_weights(self.name)).sha256 != self.sha256
        ):
            raise WeightsError(
                f"this detector was pickled with the bundled weights {self.name!r}, sha256 "
                f"{self.sha256}, which this installation does not have; install the same release "
                "of cv-superpoint in both places"
            )
        return found


class Portable:
    """How a :class:`cv_superpoint.SuperPointFeature2D` is copied and pickled.

    A pickle holds the options as they were given, so "auto" is decided anew where it is read, the
    parameters as they are now, and the weights: by name where they are bundled, else themselves.
    """

    _runtime: Runtime
    _weights: LoadedWeights
    _choice: Choice
    _detector: Detector

    def __copy__(self) -> Self:
        same = type(self).__new__(type(self))
        same.__dict__.update(self.__dict__)
        return same

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # What runs the network holds no state of a detector and is shared.
        fixed = ("_weights", "_choice", "_detector")
        same = type(self).__new__(type(self))
        memo[id(self)] = same
        for name, value in self.__dict__.items():
            same.__dict__[name] = value if name in fixed else copy.deepcopy(value, memo)
        return same

    def __getstate__(self) -> dict[str, Any]:
        state = {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("_choice", "_detector")
        }
        weights = self._weights
        if weights.name in available_weights():
            state["_weights"] = _Bundled(name=weights.name, sha256=weights.sha256)
        return {**state, "_config": self._detector.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        config = state.pop("_config")
        self.__dict__.update(state)
        if isinstance(self._weights, _Bundled):
            self._weights = self._weights.load()
        self._detector, self._choice = self._runtime.start(self._weights, config, _keep)


def _keep(weights: NetworkWeights, choice: Choice, *, threads: int | None) -> Backend:
    """Same as :func:`make_backend`, but an equal backend that was made lately is used again."""
    key = weights.digest, choice, threads
    kept = _kept.get(key)
    if kept is None:
        kept = make_backend(weights, choice, threads=threads)
        for old in list(_kept)[: max(0, len(_kept) + 1 - _MOST_KEPT)]:
            _kept.pop(old, None)
        _kept[key] = kept
    return kept
