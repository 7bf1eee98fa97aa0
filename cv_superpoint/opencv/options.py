"""What a detector is made of, for commands and runs that make one later or elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from cv_superpoint.decoding.descriptors import Kind

if TYPE_CHECKING:
    from cv_superpoint.opencv.feature2d import SuperPointFeature2D


@dataclass(frozen=True, kw_only=True)
class DetectorOptions:
    """How keypoints are found.

    Attributes:
        max_keypoints: Keep the strongest of each image; -1 keeps all above the threshold.
        threshold: Score that a keypoint must exceed, below 1; by default what the weights
            recommend.
        nms_radius: No two keypoints lie within this distance, in pixels.
        scales: Pyramid levels relative to the image, such as 1 0.5; by default what the weights
            recommend.
        weights: Bundled name or file; by default the bundled set.
        device: auto, cpu, cuda, cuda:1 or mps.
        backend: Program that runs the network; auto takes the fastest that is installed.
        precision: auto, float32, bfloat16, float16 or int8.
        threads: Threads of a network on the CPU; by default the cores that the process may use.
        descriptor_format: float32; uint8, a quarter of the bytes; or binary, bits as ORB's.
        descriptor_dim: Numbers of a descriptor, the first principal components, or bits; by default
            all numbers, or 256 bits.
    """

    max_keypoints: Annotated[int, arg(aliases=["-k"])] = 1000
    threshold: float | None = None
    nms_radius: int = 4
    scales: tuple[float, ...] | None = None
    weights: str | None = None
    device: str = "auto"
    backend: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    descriptor_format: Kind = "float32"
    descriptor_dim: int | None = None

    def create(self) -> SuperPointFeature2D:
        """The detector."""
        from cv_superpoint.opencv.feature2d import SuperPointFeature2D

        return SuperPointFeature2D.create(
            self.max_keypoints,
            self.threshold,
            self.nms_radius,
            weights=self.weights,
            device=self.device,
            backend=self.backend,
            precision=self.precision,
            scales=self.scales,
            threads=self.threads,
            descriptorFormat=self.descriptor_format,
            descriptorDim=self.descriptor_dim,
        )
