"""Self-supervised training of :mod:`cv_superpoint`: ``python -m train``.

stages/     magicpoint, adapt, joint: what a run does, in this order
learning/   what the stages that learn share: the loop, the losses, the network
data/       drawings, photographs and warped pairs as tensors, with their labels
reporting/  what a run says: progress, pictures, the report
runtime/    the processes that train

``run`` puts the stages in order, ``config`` and ``recipes`` say with what numbers, ``export`` makes
the file of weights. Drawings and geometry are the package's (``cv_superpoint.synthetic``,
``cv_superpoint.geometry``), and so is the evaluation.
"""

from train import _renamed

_renamed.install()
