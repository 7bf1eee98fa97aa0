"""The network cut into chains of layers, and its maps into strips of rows.

A chain runs strip by strip, because the maps of a whole image fit into no cache, and because strips
are work that threads can share. Where strips lie depends on the network and on the image's size
alone, so that the number of threads changes no bit of a result.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cv_superpoint.network.architecture import IMAGE, Layer, NetworkConfig, layers

STRIP_BYTES = 2**19
"""Bytes of the largest map of a strip, at least: about what stays in a core's cache."""
MAPS_TO_WEIGHTS = 1.5
"""Bytes of a strip's largest map for each of the chain's weights, which every strip reads anew."""
WINOGRAD = 4
"""Rows that a Winograd convolution makes at a time; strips have a multiple of it."""
WINOGRAD_BYTES = 16
"""Bytes of one entry of a 3 x 3 kernel, transformed: 36 float32 for 9."""
LEAST_ROWS = 8
MOST_ROWS = 16
"""Fewer would be made twice too often, at a strip's borders; more would leave threads idle.

At 240 x 320 on two threads 16 take 21.4 ms, 32 take 22.7 (the least of 39 calls in turn).
"""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Layers of which each takes the result of the one before.

    Attributes:
        inputs: Names of the maps that the first layer takes.
        layers: The layers. Two of them at most use neighbouring rows, which every strip computes
            again.
    """

    inputs: tuple[str, ...]
    layers: tuple[Layer, ...]

    @property
    def name(self) -> str:
        """Name of its result."""
        return self.layers[-1].name


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows [start, end) of a map, between rows of zeros where they reach beyond the image."""

    start: int
    end: int
    above: int = 0
    below: int = 0

    @property
    def padded(self) -> bool:
        """Whether there are zeros."""
        return self.above > 0 or self.below > 0


def chains(config: NetworkConfig) -> list[Chain]:
    """All layers of a network, in an order in which they can run."""
    steps = layers(config)
    users = Counter(name for layer in steps for name in layer.inputs)
    found: list[list[Layer]] = []
    for layer in steps:
        last = found[-1] if found else []
        if last and _continues(last, layer) and users[last[-1].name] == 1:
            last.append(layer)
        else:
            found.append([layer])
    return [Chain(inputs=chain[0].inputs, layers=tuple(chain)) for chain in found]


def _continues(chain: Sequence[Layer], layer: Layer) -> bool:
    wide = sum(each.shape[2:] > (each.stride,) * 2 for each in (*chain, layer))
    return layer.inputs == (chain[-1].name,) and chain[-1].kind != "pool" and wide <= 2


def sizes(config: NetworkConfig, height: int, width: int) -> dict[str, tuple[int, int, int]]:
    """(channels, height, width) of every layer's result, by its name."""
    found = {IMAGE: (config.in_channels, height, width)}
    for layer in layers(config):
        channels, h, w = found[layer.inputs[0]]
        if layer.kind == "pool":
            h, w = h // 2, w // 2
        elif layer.kind == "convolution":
            channels, _, kernel, _ = layer.shape
            h, w = ((length + 2 * layer.padding - kernel) // layer.stride + 1 for length in (h, w))
        found[layer.name] = channels, h, w
    return found


def strips(chain: Chain, size: dict[str, tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Rows [start, end) of the chain's result that run together."""
    height = size[chain.name][1]
    halved = 2 if chain.layers[-1].kind == "pool" else 1
    row = max(math.prod(size[layer.name]) for layer in chain.layers) * 4 / (height * halved)
    weights = sum(math.prod(layer.shape) for layer in chain.layers if layer.shape) * WINOGRAD_BYTES
    fit = max(STRIP_BYTES, MAPS_TO_WEIGHTS * weights) / row
    count = math.ceil(height * halved / min(max(LEAST_ROWS, fit), MOST_ROWS))
    step = math.ceil(height * halved / count / WINOGRAD) * WINOGRAD // halved
    return [(start, min(start + step, height)) for start in range(0, height, step)]


def needed_rows(
    chain: Chain, strip: tuple[int, int], size: dict[str, tuple[int, int, int]]
) -> list[Rows]:
    """What each layer of a chain takes for a strip of the chain's result."""
    low, high = strip
    found = []
    for layer in reversed(chain.layers):
        if layer.kind == "pool":
            low, high = 2 * low, 2 * high
        elif layer.kind == "convolution":
            low = low * layer.stride - layer.padding
            high = (high - 1) * layer.stride - layer.padding + layer.shape[2]
        height = size[layer.inputs[0]][1]
        rows = Rows(
            start=max(low, 0),
            end=min(high, height),
            above=max(-low, 0),
            below=max(high - height, 0),
        )
        found.append(rows)
        low, high = rows.start, rows.end
    return found[::-1]


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Some rows of a chain's result, and what they are made of.

    Attributes:
        chain: Index of the chain.
        start, end: First row, and the row after the last.
        rows: What each layer takes.
        needs: Indices of the strips, of other chains, that the first layer takes rows of.
    """

    chain: int
    start: int
    end: int
    rows: tuple[Rows, ...]
    needs: tuple[int, ...]


@functools.lru_cache(maxsize=16)
def plan(config: NetworkConfig, height: int, width: int) -> tuple[Strip, ...]:
    """All strips of an image of (height, width), each after those that it needs."""
    size = sizes(config, height, width)
    made: dict[str, list[tuple[int, int, int]]] = {IMAGE: []}
    found: list[Strip] = []
    for index, chain in enumerate(chains(config)):
        made[chain.name] = []
        for start, end in strips(chain, size):
            rows = needed_rows(chain, (start, end), size)
            needs = tuple(
                place
                for name in chain.inputs
                for place, low, high in made[name]
                if low < rows[0].end and high > rows[0].start
            )
            made[chain.name].append((len(found), start, end))
            found.append(Strip(chain=index, start=start, end=end, rows=tuple(rows), needs=needs))
    return tuple(found)
