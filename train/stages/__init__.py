"""The stages of training, in their order.

magicpoint.py  1, the detector learns corners from drawings
adapt.py       2, it labels photographs over many warps
joint.py       3, detector and descriptors learn on warped pairs
compact.py     of finished weights: principal components of the descriptors, and planes for bits

``train.run`` puts them in order; nothing below enters.
"""
