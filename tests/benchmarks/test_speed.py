"""Speed on a 480 x 640 photograph with at most 1024 keypoints: `make bench`.

Absolute times say little on shared machines, so the comparison with transformers' SuperPoint runs
both in turn, with the same weights and settings, and prints the ratio of the medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from transformers import SuperPointConfig, SuperPointForKeypointDetection

from cv_superpoint import SuperPoint, SuperPointFeature2D
from cv_superpoint.detector import Detector

COUNT = 1024
IMAGE = cv2.resize(skimage.data.astronaut()[:384, :, 1], (640, 480), interpolation=cv2.INTER_CUBIC)


class RecordedBackend:
    """Answers with a network's recorded outputs, so that what is timed is the rest."""

    name, device, precision, batched = "recorded", "cpu", "float32", False

    def __init__(self, answer: tuple[np.ndarray, np.ndarray]) -> None:
        self.answer = answer

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.answer

    def describe(self) -> str:
        return "recorded"


def ours(**parameters: Any) -> SuperPointFeature2D:
    return SuperPointFeature2D.create(COUNT, 2e-4, device="cpu", **parameters)


def transformers_superpoint() -> Callable[[], Any]:
    """transformers' SuperPoint with the bundled weights, from the uint8 image to numpy arrays."""
    net = SuperPoint.from_weights().net
    state = {}
    for index, block in enumerate(net.encoder):
        prefix = f"encoder.conv_blocks.{index // 2}.conv_{'ab'[index % 2]}"
        state[f"{prefix}.weight"], state[f"{prefix}.bias"] = block.conv.weight, block.conv.bias
    for prefix, head in [
        ("keypoint_decoder.conv_score_a", net.detector_hidden),
        ("keypoint_decoder.conv_score_b", net.detector_output),
        ("descriptor_decoder.conv_descriptor_a", net.descriptor_hidden),
        ("descriptor_decoder.conv_descriptor_b", net.descriptor_output),
    ]:
        state[f"{prefix}.weight"], state[f"{prefix}.bias"] = head.conv.weight, head.conv.bias
    model = SuperPointForKeypointDetection(
        SuperPointConfig(keypoint_threshold=2e-4, max_keypoints=COUNT)
    ).eval()
    model.load_state_dict(state)

    @torch.inference_mode()
    def call() -> Any:
        grey = torch.from_numpy(IMAGE).float().div(255).expand(1, 3, -1, -1)
        output = model(grey)
        return output.keypoints.numpy(), output.descriptors.numpy()

    return call


@pytest.mark.parametrize("name", ["superpoint", "transformers", "sift", "orb"])
def test_whole_call(benchmark: Any, name: str) -> None:
    benchmark.group = "whole call, 480 x 640, 1024 keypoints"
    if name == "transformers":
        call = transformers_superpoint()
    else:
        feature = {"superpoint": ours, "sift": lambda: cv2.SIFT_create(COUNT)}.get(
            name, lambda: cv2.ORB_create(COUNT)
        )()
        call = lambda: feature.detectAndCompute(IMAGE, None)  # noqa: E731
    benchmark.pedantic(call, rounds=7, warmup_rounds=1)


def test_ratio_to_transformers(benchmark: Any, capsys: Any) -> None:
    """The two in turn, so that both see the same machine."""
    feature, other = ours(), transformers_superpoint()
    times: dict[str, list[float]] = {"superpoint": [], "transformers": []}

    def both() -> None:
        for name, call in [
            ("superpoint", lambda: feature.detectAndCompute(IMAGE, None)),
            ("transformers", other),
        ]:
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)

    benchmark.group = "both in turn"
    benchmark.pedantic(both, rounds=9, warmup_rounds=1)
    medians = {name: statistics.median(values[1:]) * 1e3 for name, values in times.items()}
    ratio = medians["transformers"] / medians["superpoint"]
    benchmark.extra_info.update(medians, ratio=ratio)
    with capsys.disabled():
        print(
            f"\nsuperpoint {medians['superpoint']:.0f} ms, transformers "
            f"{medians['transformers']:.0f} ms: {ratio:.2f} times as fast"
        )


def test_around_the_network(benchmark: Any) -> None:
    """Checks, heatmap, suppression, sub-pixel, descriptors, KeyPoint objects: all but the net."""
    face = ours()
    recorded = RecordedBackend(face._backend.run(IMAGE[None, :, :, None]))
    face._detector = Detector(
        recorded, channels=1, descriptor_dim=256, config=face._detector.config
    )
    benchmark.group = "around the network"
    keypoints, _ = benchmark.pedantic(
        lambda: face.detectAndCompute(IMAGE, None), rounds=50, warmup_rounds=5
    )
    assert len(keypoints) == COUNT


def test_large_photograph(benchmark: Any) -> None:
    """12 megapixels in tiles, for memory and time beside docs/performance.md."""
    image = cv2.resize(skimage.data.astronaut(), (4000, 3000), interpolation=cv2.INTER_CUBIC)
    feature = SuperPointFeature2D.create(4096, device="cpu")
    benchmark.group = "3000 x 4000"
    benchmark.pedantic(lambda: feature.detectAndCompute(image, None), rounds=1)
