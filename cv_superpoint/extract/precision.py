"""The precision that a run computes in: 8 bits are named, and not mixed with others.

Of 100 keypoints one differs between float32 and 16 bits, and two between these and 8 bits. So a run
records that it is in 8 bits, where records of earlier releases, which had none, have no precision;
and with precision "auto" it goes on with what it was begun with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from cv_superpoint.backends import choose
from cv_superpoint.opencv.options import DetectorOptions
from cv_superpoint.weights import load_weights

INT8 = "int8"
Options = TypeVar("Options", bound=DetectorOptions)


def settled(options: Options, begun: Mapping[str, Any] | None, *, elsewhere: bool) -> Options:
    """The options, with 8 bits named where "auto" is to take them.

    Args:
        options: Options that the caller asked for.
        begun: Settings of the run that goes on; None begins one.
        elsewhere: Whether other machines compute, which may not have 8 bits.
    """
    if options.precision != "auto":
        return options
    if begun is not None:
        in_8_bits = begun.get("options", {}).get("precision") == INT8
    else:
        in_8_bits = not elsewhere and takes_8_bits(options)
    return replace(options, precision=INT8) if in_8_bits else options


def without_8_bits(options: Options) -> Options:
    """The options of a run that is not in 8 bits, on this machine."""
    return replace(options, precision="float32") if takes_8_bits(options) else options


def takes_8_bits(options: DetectorOptions) -> bool:
    """Whether precision "auto" is 8 bits on this machine."""
    if options.precision != "auto":
        return False
    measured = load_weights(options.weights).precisions
    if INT8 not in measured:
        return False
    choice = choose(
        backend=options.backend, device=options.device, precision="auto", measured=measured
    )
    return choice.precision == INT8
