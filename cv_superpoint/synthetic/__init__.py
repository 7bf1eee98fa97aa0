"""Drawings whose corners are known: what a detector learns first, and is measured on.

shapes.py       the kinds of shapes, as polygons and their corners
polygons.py     polygons to anti-aliased pictures
photometric.py  what light, optics and sensor do to a picture
samples.py      one drawing by seed and index

The evaluation and training enter; nothing here needs torch.
"""
