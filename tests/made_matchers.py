"""A matcher made by hand: its layers add nothing, so that it matches mutual nearest neighbours."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import torch

from cv_superpoint.matching.lightglue.bundled import bundle
from cv_superpoint.matching.lightglue.config import MatcherConfig
from cv_superpoint.matching.lightglue.files import save_matcher
from cv_superpoint.matching.lightglue.network import MatcherNet
from cv_superpoint.weights import store

LITE = "superpoint-lite"
CONFIG = MatcherConfig(descriptor_dim=64, width=64, layers=1)
SHARPNESS = 30.0
"""Scale of the softmax, by which cosines are multiplied."""


def nearest_net() -> MatcherNet:
    torch.manual_seed(0)
    net = MatcherNet(CONFIG).eval().requires_grad_(False)
    for linear, factor in (
        (net.project, 1.0),
        (net.heads[0].project, math.sqrt(SHARPNESS * math.sqrt(CONFIG.width))),
    ):
        linear.weight.copy_(factor * torch.eye(CONFIG.width))
        linear.bias.zero_()
    for layer in (net.self_layers[0], net.cross_layers[0]):
        layer.mix[3].weight.zero_()
        layer.mix[3].bias.zero_()
    net.heads[0].matchable.weight.zero_()
    net.heads[0].matchable.bias.fill_(6.0)
    return net


def nearest_file(path: Path, **recorded: str) -> Path:
    """A matcher for features of the lite set."""
    save_matcher(path, nearest_net().state_dict(), CONFIG, weights=LITE, threshold=0.2, **recorded)
    return path


def bundled_folder(root: Path) -> Path:
    """A folder with the bundled weights, in which the lite set alone has a matcher, the above."""
    folder = root / "weights"
    shutil.copytree(store.weights_folder(), folder)
    for matcher in folder.glob("*.matcher.safetensors"):
        matcher.unlink()
    manifest = folder / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    content = json.loads(text)
    content["matchers"] = {}
    manifest.write_text(json.dumps(content), encoding="utf-8")
    bundle(nearest_file(root / "matcher.safetensors"), folder)
    return folder
