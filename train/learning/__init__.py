"""What all stages that learn share.

loop.py        steps, validation, checkpoints; loader.py feeds it from worker processes
losses.py      the losses, and how they differ from the paper's
model.py       the network while it trains
keypoints.py   keypoints through which gradients flow
detect.py      keypoints of a network in training
validate.py    measures on warped pairs
checkpoint.py  saved whole or not at all

Stages, their run and the export enter.
"""
