"""Modules of training under their old names."""

from __future__ import annotations

from cv_superpoint import _renamed

RENAMED = {
    "train.adapt": "train.stages.adapt",
    "train.checkpoint": "train.learning.checkpoint",
    "train.command": "cv_superpoint.cli.command",
    "train.curves": "train.reporting.curves",
    "train.data.augment": "cv_superpoint.synthetic.photometric",
    "train.data.drawing": "cv_superpoint.synthetic.polygons",
    "train.data.shapes": "cv_superpoint.synthetic.shapes",
    "train.detect": "train.learning.detect",
    "train.distributed": "train.runtime.distributed",
    "train.evaluate": "cv_superpoint.evaluation",
    "train.evaluate.subpixel": "train.learning.subpixel",
    "train.geometry": "cv_superpoint",
    "train.geometry.homography": "cv_superpoint.geometry",
    "train.joint": "train.stages.joint",
    "train.keypoints": "train.learning.keypoints",
    "train.labels": "train.data.labels",
    "train.loop": "train.learning.loop",
    "train.losses": "train.learning.losses",
    "train.magicpoint": "train.stages.magicpoint",
    "train.model": "train.learning.model",
    "train.preview": "train.reporting.preview",
    "train.report": "train.reporting.progress",
    "train.summary": "train.reporting.summary",
    "train.validate": "train.learning.validate",
}

PROGRAMS = {
    "train.evaluate.__main__": _renamed.Program(["evaluate"]),
    "train.evaluate.limits": _renamed.Program(["evaluate", "--protocol", "limits"]),
    "train.summary": _renamed.Program(["summary"]),
}


def install() -> None:
    """Call :func:`cv_superpoint._renamed.install` for these names."""
    _renamed.install(RENAMED, PROGRAMS)
