"""A network that is quick to write and to read."""

from cv_superpoint.network.architecture import NetworkConfig

CONFIG = NetworkConfig(channels=(2, 3, 4, 5), head_channels=6, descriptor_dim=7)
