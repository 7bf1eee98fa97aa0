"""Training data as tensors: drawings, photographs, warped pairs, their labels.

synthetic.py      drawn shapes
images.py         photographs
pairs.py          warped pairs; on_device.py makes them in batches on the device
augment_batch.py  photometric changes of a batch
labels.py         keypoints to targets of cells

Stages and what they share enter; nothing here imports what learns from it.
"""
