"""Images in, features out: arrays alone.

detector.py   quotas, masks, pyramid levels, tiles, batches
levels.py     the levels of a pyramid, and the way of a point to its image
tiles.py      overlapping pieces that give the keypoints of the whole
features.py   what comes out
runtime.py    where and how the network runs: every detector starts here
streaming.py  a video, frame by frame
on_device.py  levels and tiles that are decoded on the device
module.py     SuperPoint, the same for torch tensors

The face (opencv) enters, and the rooms above it.
"""

from cv_superpoint.detector.detector import Detector, DetectorConfig

__all__ = ["Detector", "DetectorConfig"]
