"""How good a detector is, on pairs of images whose geometry is known.

run.py          ``cv-superpoint evaluate``: protocols, detectors and data in, a report out
protocols.py    what each protocol does with a pair
datasets.py     pairs from folders; warps.py makes them of photographs
detectors.py    detectors by name; predictions.py runs and remembers them
measure.py      a pair to its measures; metrics.py has them, on arrays alone
statistics.py   means, intervals, paired differences
paired.py       two precisions on the same pairs; calibration.py finds the ranges of one
results.py      tables, JSON; figures.py draws
synthetic.py    drawn shapes against their vertices
limits.py       where a detector stops working
reliable.py     how often the verdict on a pair of pictures errs

Commands, benchmarks and training enter.
"""
