"""Self-supervised training of :mod:`cv_superpoint`: ``python -m train``."""
