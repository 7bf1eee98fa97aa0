"""The ranges of a network's maps, for 8 bits: found on photographs, read and written.

In a file they are an entry ``ranges`` of its metadata, of a bundled set one of its manifest::

    {"tensors": digest, "method": text, "photographs": text, "maps": {layer: [low, high]}}
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cv_superpoint.network.arrays import Floats, run_layers
from cv_superpoint.network.quantisation import MapRange, Ranges, rounded_maps
from cv_superpoint.network.weights import NetworkWeights
from cv_superpoint.weights.files import WeightsError

KEY = "ranges"
SHARE = 0.99999
"""Share of a map's values that lie within its range."""
METHOD = f"{SHARE:.3%} of the values of each map"
LARGEST = 1e6
"""End of a range; those of trained networks are below 100."""
LEAST = 1e-6
"""Length of a range: a map that is 0 on all photographs has one too."""
REMEDY = "find them with cv-superpoint calibrate"
_BINS = 1 << 16
_HALF = _BINS >> 1


class Histogram:
    """How often each value came, told apart by the upper 16 bits of a float32: within 1 %."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)

    def add(self, values: Floats) -> None:
        """Count the values, of any shape."""
        bins = np.ascontiguousarray(values).view(np.uint32).ravel() >> 16
        self._counts += np.bincount(bins, minlength=_BINS)

    def range(self, share: float = SHARE) -> MapRange:
        """Both ends of the range; ``share`` of all values lies on the inner side of each."""
        # Positive floats grow with their bits, negative ones shrink.
        positive, negative = self._counts[:_HALF], self._counts[_HALF:]
        total = self._counts.sum()
        least = math.ceil(share * total)
        high = _value(int(np.searchsorted(np.cumsum(positive) + negative.sum(), least)))
        low = _value(int(np.searchsorted(np.cumsum(negative) + positive.sum(), least)))
        return MapRange(low=-low if negative[1:].any() else 0.0, high=max(high, LEAST))


def _value(index: int) -> float:
    """The upper end of a bin, in four digits."""
    bits = np.array([(index + 1) << 16], np.uint32)
    return float(f"{bits.view(np.float32)[0]:.4g}") if index else 0.0


def find_ranges(
    weights: NetworkWeights, images: Iterable[NDArray[np.uint8]], photographs: str = ""
) -> Ranges:
    """Look at every map of a network on some photographs.

    Args:
        weights: The network.
        images: (H, W, C) uint8, H and W multiples of 8; a hundred of 240 x 320 are enough.
        photographs: What they are, for the record.

    Raises:
        WeightsError: If there is no image, or a map reaches beyond what 8 bits can tell.
    """
    seen = {name: Histogram() for name in rounded_maps(weights.config)}

    def look(name: str, values: Floats) -> Floats:
        if name in seen:
            seen[name].add(values)
        return values

    count = 0
    for image in images:
        run_layers(weights, image, look)
        count += 1
    if not count:
        raise WeightsError("the ranges of a network's maps need photographs, got none; pass some")
    ranges = Ranges(
        maps={name: histogram.range() for name, histogram in seen.items()},
        tensors=weights.tensor_digest,
        method=METHOD,
        photographs=photographs or f"{count} photographs",
    )
    return check_ranges(ranges, weights, "these photographs")


def write_ranges(ranges: Ranges) -> dict[str, Any]:
    """The record of ranges, for JSON."""
    return {
        "tensors": ranges.tensors,
        "method": ranges.method,
        "photographs": ranges.photographs,
        "maps": {name: [one.low, one.high] for name, one in ranges.maps.items()},
    }


def read_ranges(record: Any, weights: NetworkWeights, source: str) -> Ranges:
    """Ranges of a record, checked.

    Args:
        record: Record that :func:`write_ranges` made.
        weights: The network that they must be of.
        source: The file, for errors.

    Raises:
        WeightsError: If the record is none, or of another network.
    """
    try:
        maps = {
            str(name): MapRange(low=float(low), high=float(high))
            for name, (low, high) in record["maps"].items()
        }
        texts = {key: str(record[key]) for key in ("tensors", "method", "photographs")}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{source}: expected ranges for 8 bits as 'tensors', 'method', 'photographs' and "
            f"'maps' with the lowest and highest value of each, got {record!r:.200} ({error!r}); "
            f"{REMEDY}"
        ) from error
    return check_ranges(Ranges(maps=maps, **texts), weights, source)


def check_ranges(ranges: Ranges, weights: NetworkWeights, source: str) -> Ranges:
    """The same ranges, if they are of this network.

    Raises:
        WeightsError: If they are of another one, or cannot be those of maps.
    """
    expected: Mapping[str, Any] = dict.fromkeys(rounded_maps(weights.config))
    if expected.keys() != ranges.maps.keys():
        wrong = sorted(expected.keys() ^ ranges.maps.keys())
        raise WeightsError(
            f"{source}: expected ranges for 8 bits of the maps {', '.join(expected)}, got others "
            f"(the difference: {', '.join(wrong)}); {REMEDY}"
        )
    for name, one in ranges.maps.items():
        # NaN fails this too.
        if not (-LARGEST <= one.low <= 0 and LEAST <= one.high <= LARGEST):
            raise WeightsError(
                f"{source}: the range of map {name!r} for 8 bits must go from at most 0 to more "
                f"than 0, within {LARGEST:g}, got {one.low:g} to {one.high:g}; {REMEDY}"
            )
    if ranges.tensors != weights.tensor_digest:
        raise WeightsError(
            f"{source}: its ranges for 8 bits were found with other weights (of digest "
            f"{ranges.tensors[:12]}, these have {weights.tensor_digest[:12]}); {REMEDY}"
        )
    return ranges


def needed_ranges(weights: NetworkWeights) -> Ranges:
    """The ranges of a network that is to run in 8 bits.

    Raises:
        WeightsError: If there are none.
    """
    if weights.ranges is None:
        name = getattr(weights, "name", "these weights")
        raise WeightsError(
            f"precision 'int8' needs the ranges of the network's maps, and {name} has none; "
            f"{REMEDY}, or take another precision"
        )
    return weights.ranges
