"""Decoding of the network's outputs to keypoints and descriptors, in three implementations.

options.py  Decoding, the value that says what is kept: every writing takes it whole
arrays.py   numpy, which the CPU runs, and to which the tests hold the others; sampling.py gives
            it descriptors, ties.py the order of scores
tensors.py  torch: with gradients for training and ``SuperPoint``, in batches for CUDA graphs
graph.py    ONNX nodes

descriptors.py  DescriptorFormat and what makes of descriptors bytes, bits or fewer numbers

The detector, the backends, the exporters and training enter.
"""

from cv_superpoint.decoding.options import Decoding

__all__ = ["Decoding"]
