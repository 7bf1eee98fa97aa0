"""Weights: found, verified, read in the layouts of several releases, written.

store.py    bundled sets and files: the network's weights and where they come from
saving.py   networks to files
files.py    safetensors and ``torch.save``, without running anything in them
layouts.py  how each release names its layers
tensors.py  the entries of a file to the network's tensors, with every check
ranges.py   between which values the maps lie, for 8 bits: found, read and written

The backends, the exporters, the makers of detectors and training enter.
"""

from cv_superpoint.weights.files import WeightsError
from cv_superpoint.weights.ranges import find_ranges
from cv_superpoint.weights.saving import save_weights
from cv_superpoint.weights.store import LoadedWeights, available_weights, load_weights

__all__ = [
    "LoadedWeights",
    "WeightsError",
    "available_weights",
    "find_ranges",
    "load_weights",
    "save_weights",
]
