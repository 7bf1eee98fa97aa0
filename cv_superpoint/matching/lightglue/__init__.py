"""A learned matcher: attention between the keypoints of two images.

config.py    sizes of the network
network.py   the network in torch, for training
arrays.py    the network in numpy
layers.py    the network node by node, for graphs
graph.py     the network as ONNX files
openvino.py  the network in OpenVINO
torch.py     the network in torch, to match
running.py   what runs the network, and which of it is taken
lanes.py     pairs side by side
files.py     files of matchers
bundled.py   those that come with the package
matcher.py   LightGlueMatcher
"""

from cv_superpoint.matching.lightglue.matcher import LightGlueMatcher

__all__ = ["LightGlueMatcher"]
