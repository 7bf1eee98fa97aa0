"""From the network's outputs to keypoints and descriptors: one meaning in three writings.

arrays.py   numpy, which the CPU runs, and to which the tests hold the others
tensors.py  torch, differentiable: training and ``SuperPoint``
device.py   torch, in batches and without shapes that data decide: CUDA graphs
graph.py    ONNX nodes

The detector, the backends, the exporters and training enter.
"""
