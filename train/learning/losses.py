"""Losses of the detector and of the descriptors.

What follows the paper (sections 3.4 and 3.5):
    - Detector: cross-entropy over the 65 channels of each 8 x 8 cell, dustbin included; cells with
      several keypoints keep one at random (in ``labels``); both images of a pair count alike.
    - ``dense_hinge_loss``: all pairs of cells of the two images, correspondence within 8 px of the
      warped cell centre, margins 1 and 0.2, weight 250 of the positive pairs, divided by the
      square of the number of cells. The default of that function, not of training.

What differs, and why:
    - Cells that show anything outside the photograph do not count, in any loss: the paper does not
      say what happens to them, and labels there are wrong.
    - Detector targets may be soft (``labels.labels_from_points``): a keypoint between four pixels
      is shared among them, so that sub-pixel positions can be learned.
    - Detector: a mean over valid cells instead of all; cells with a keypoint may count more
      (``keypoint_weight``): most cells are empty, and a short training spends its steps on saying
      so. The ``smoke`` recipe uses 10, the longer ones 1.
    - Descriptors: ``dual_softmax_loss`` is what training uses. After 220 steps its matching
      score was .352 where the hinge's was .062 (docs/results/training.md): nearly all pairs of
      cells are negatives that are soon far enough apart for the hinge, and then have no gradient.
    - Hinge: divided by the number of valid pairs, descriptors are of unit length. Setting
      ``negative_margin`` to -1 drives every other product to -1, the target of the earliest
      descriptions of the method.
    - ``reprojection_loss``: not in the paper. Pseudo-labels are a pixel uncertain; two views of
      one point are not, so they may correct each other (as in ALIKE, Zhao et al. 2022, section
      III.D). It needs no labels, only the homography.
    - ``agreement_loss``: not in the paper. Whether a corner is above the threshold in both images
      is what repeatability measures, so both views learn the mean of what they say about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cv_superpoint.grid import CELL_SIZE
from train.learning.keypoints import SoftKeypoints, warp
from train.runtime.distributed import mean_over_ranks


def detector_loss(
    logits: Tensor, targets: Tensor, valid: Tensor | None = None, keypoint_weight: float = 1.0
) -> Tensor:
    """Cross-entropy over the 65 channels of every cell.

    Args:
        logits: (B, 65, h, w).
        targets: (B, 65, h, w), summing to one over the channels.
        valid: (B, h, w) boolean, cells that count; all by default.
        keypoint_weight: How much more a cell counts for the share of it that is a keypoint.

    Returns:
        Weighted mean over the valid cells, a scalar; 0 when there are none.
    """
    cells = -(targets * F.log_softmax(logits.float(), dim=1)).sum(dim=1)
    weight = 1 + (keypoint_weight - 1) * (1 - targets[:, -1])
    if valid is not None:
        weight = weight * valid
    return (cells * weight).sum() / mean_over_ranks(weight.sum()).clamp(min=1)


@dataclass(frozen=True)
class Taught:
    """What a trained network says of the points whose descriptors are learned.

    Attributes:
        descriptors0: (B, N, D') unit rows, of points of image 0.
        descriptors1: (B, N, D') unit rows, of the same points in image 1.
        scale: Inverse temperature of the softmax.
        share: Share of its dual softmax in the target; the rest says that each point matches
            itself.
    """

    descriptors0: Tensor
    descriptors1: Tensor
    scale: Tensor | float
    share: float

    def of(self, pair: int, kept: Tensor) -> Taught:
        """The kept points (N,) of one pair, as a batch of one."""
        rows = [one[pair, kept][None] for one in (self.descriptors0, self.descriptors1)]
        return Taught(rows[0], rows[1], self.scale, self.share)


def dual_softmax_loss(
    descriptors0: Tensor,
    descriptors1: Tensor,
    points1: Tensor,
    visible: Tensor,
    scale: Tensor | float,
    safe_radius: float = 4.0,
    taught: Taught | None = None,
) -> Tensor:
    """Each point should find its own match among all others, in both directions (InfoNCE).

    Args:
        descriptors0: (B, N, D) unit rows, of points of image 0.
        descriptors1: (B, N, D) unit rows, of the same points in image 1.
        points1: (B, N, 2) the points in image 1, pixels.
        visible: (B, N) boolean, points that are valid in both images.
        scale: Inverse temperature.
        safe_radius: Points of image 1 closer than this, pixels, are not told apart.
        taught: What a trained network says of the same points, if it has a share in the target.

    Returns:
        Mean cross-entropy over visible points, a scalar; 0 when there are none.
    """
    first, second = descriptors0.float(), descriptors1.float()
    if first.device.type == "cpu":
        # One pair after the other, of its visible points only: a third of the numbers, and they
        # stay in the processor's cache.
        loss = torch.stack(
            [
                dual_softmax_terms(
                    first[k, kept][None], second[k, kept][None], points1[k, kept][None],
                    kept[kept][None], scale, safe_radius, taught and taught.of(k, kept),
                ).sum()
                for k, kept in enumerate(visible)
            ]
        ).sum()  # fmt: skip
    else:
        terms = dual_softmax_terms(first, second, points1, visible, scale, safe_radius, taught)
        loss = (terms * visible).sum()
    return loss / mean_over_ranks(visible.sum()).clamp(min=1)


def dual_softmax_terms(
    descriptors0: Tensor,
    descriptors1: Tensor,
    points1: Tensor,
    visible: Tensor,
    scale: Tensor | float,
    safe_radius: float,
    taught: Taught | None = None,
) -> Tensor:
    """Cross-entropy (B, N) of every point, the mean of both directions.

    Arguments are those of :func:`dual_softmax_loss`; what is not visible has no meaning.
    """
    similarity = scale * (descriptors0 @ descriptors1.transpose(1, 2))
    itself = similarity.diagonal(dim1=1, dim2=2)
    same = torch.eye(similarity.shape[1], dtype=torch.bool, device=similarity.device)
    close = torch.cdist(points1, points1) < safe_radius
    hidden = (close & ~same) | ~visible[:, :, None] | ~visible[:, None, :]
    similarity = similarity.masked_fill(hidden, -1e4)
    normaliser = (similarity.logsumexp(dim=2) + similarity.logsumexp(dim=1)) / 2
    if taught is None:
        return normaliser - itself
    theirs = (taught.scale * taught.descriptors0 @ taught.descriptors1.transpose(1, 2)).masked_fill(
        hidden, -1e4
    )
    expected = [(theirs.softmax(dim=dim) * similarity).sum(dim=dim) for dim in (2, 1)]
    return normaliser - (1 - taught.share) * itself - taught.share * (expected[0] + expected[1]) / 2


def cell_pairs(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What the dense hinge compares.

    Args:
        batch: With ``homography`` (B, 3, 3) from image 0 to image 1 and ``valid0``, ``valid1``
            (B, h, w).

    Returns:
        Cell centres of image 0 in image 1 (B, h * w, 2), and the valid pairs of cells
        (B, h * w, h * w).
    """
    valid0, valid1 = batch["valid0"].flatten(1), batch["valid1"].flatten(1)
    h, w = batch["valid0"].shape[1:]
    rows, columns = (torch.arange(length, device=valid0.device) for length in (h, w))
    i, j = torch.meshgrid(rows, columns, indexing="ij")
    centres = torch.stack([j, i], dim=-1).reshape(-1, 2) * CELL_SIZE + (CELL_SIZE - 1) / 2
    homogeneous = F.pad(centres, (0, 1), value=1.0)
    warped = homogeneous @ batch["homography"].transpose(1, 2)
    front = warped[..., 2] > 1e-6
    points = warped[..., :2] / warped[..., 2:].clamp(min=1e-6)
    return points, (valid0 & front)[:, :, None] & valid1[:, None, :]


def dense_hinge_loss(
    dense0: Tensor,
    dense1: Tensor,
    warped_centres: Tensor,
    valid: Tensor,
    *,
    positive_margin: float = 1.0,
    negative_margin: float = 0.2,
    positive_weight: float = 250.0,
    cell_size: int = 8,
) -> Tensor:
    """The paper's hinge over all pairs of cells (equations 4 to 6).

    Args:
        dense0: (B, D, h, w) unit descriptors of image 0.
        dense1: (B, D, h, w) of image 1.
        warped_centres: (B, h * w, 2) cell centres of image 0, row by row, in image 1, pixels.
        valid: (B, h * w, h * w) boolean, pairs (cell of image 0, cell of image 1) that count.
        positive_margin: Correspondences below it are pulled together.
        negative_margin: Others above it are pushed apart.
        positive_weight: Weight of the correspondences.
        cell_size: Pixels; also the largest distance of a correspondence.

    Returns:
        Mean over the valid pairs, a scalar; 0 when there are none.
    """
    h, w = dense1.shape[2:]
    y, x = torch.meshgrid(
        torch.arange(h, device=dense1.device), torch.arange(w, device=dense1.device), indexing="ij"
    )
    centres = torch.stack([x, y], dim=-1).reshape(1, -1, 2) * cell_size + (cell_size - 1) / 2
    matching = torch.cdist(warped_centres, centres.to(warped_centres)) <= cell_size
    product = dense0.flatten(2).transpose(1, 2).float() @ dense1.flatten(2).float()
    pull = positive_weight * (positive_margin - product).clamp(min=0)
    push = (product - negative_margin).clamp(min=0)
    loss = torch.where(matching, pull, push)
    return (loss * valid).sum() / mean_over_ranks(valid.sum()).clamp(min=1)


def reprojection_loss(
    keypoints0: SoftKeypoints, keypoints1: SoftKeypoints, homography: Tensor, radius: float = 3.0
) -> tuple[Tensor, Tensor]:
    """How far keypoints of one image lie from their counterparts of the other, both ways.

    Counterparts are mutually nearest keypoints within ``radius``. Compares positions only: where
    the counterpart is missing, or the detector is flat, the other terms of the loss act.

    Args:
        keypoints0: Keypoints of image 0.
        keypoints1: Keypoints of image 1.
        homography: (B, 3, 3), maps points of image 0 to image 1.
        radius: Pixels of either image.

    Returns:
        Mean distance in pixels over the pairs, the mean of both directions, and the mean spread
        of the paired keypoints, pixels squared; scalars, 0 when there are no pairs.
    """
    there = warp(homography, keypoints0.points)
    back = warp(torch.linalg.inv(homography.double()).float(), keypoints1.points)
    with torch.no_grad():
        both = keypoints0.valid[:, :, None] & keypoints1.valid[:, None, :]
        far = torch.cdist(there, keypoints1.points).masked_fill(~both, torch.inf)
        far = torch.maximum(far, torch.cdist(keypoints0.points, back))
        # Each keypoint with its nearest, and which of these are pairs: the host would have to wait
        # for the length of a list of the pairs alone.
        least, partner = far.min(dim=2)
        mutual = far.argmin(dim=1).gather(1, partner) == torch.arange(
            far.shape[1], device=far.device
        )
        paired = mutual & (least < radius)
    counterpart = [
        rows.gather(1, partner[..., None].expand(-1, -1, 2)) for rows in (keypoints1.points, back)
    ]
    forward = (there - counterpart[0]).norm(dim=2)
    backward = (counterpart[1] - keypoints0.points).norm(dim=2)
    spread = keypoints0.spread + keypoints1.spread.gather(1, partner)
    pairs = mean_over_ranks(paired.sum().float()).clamp(min=1)
    distance = torch.where(paired, forward + backward, 0.0)
    spread = torch.where(paired, spread, 0.0)
    return distance.sum() / (2 * pairs), spread.sum() / (2 * pairs)


def agreement_loss(
    keypoints0: SoftKeypoints, keypoints1: SoftKeypoints, homography: Tensor
) -> Tensor:
    """How differently two images judge the keypoints of either.

    At each keypoint of an image, the probability of a keypoint near it is compared with the
    probability near the same place of the other image. The target of both is their mean, without
    gradient.

    Args:
        keypoints0: Keypoints of image 0.
        keypoints1: Keypoints of image 1.
        homography: (B, 3, 3), maps points of image 0 to image 1.

    Returns:
        Mean divergence of the two probabilities from their mean (nats, 0 if they are equal) over
        the keypoints whose place counts in the other image, a scalar; 0 when there are none.
    """
    back = torch.linalg.inv(homography.double()).float()
    total = homography.new_zeros(())
    count = homography.new_zeros(())
    for own, other, matrix in (
        (keypoints0, keypoints1, homography),
        (keypoints1, keypoints0, back),
    ):
        points = own.points.detach()
        here, counts_here = _at(own.nearby, points)
        there, counts_there = _at(other.nearby, warp(matrix, points))
        mean = ((here + there) / 2).detach()
        both = _divergence(mean, here) + _divergence(mean, there)
        kept = own.valid & counts_here & counts_there
        total = total + (both * kept).sum()
        count = count + kept.sum()
    return total / mean_over_ranks(count).clamp(min=1)


def _divergence(target: Tensor, probability: Tensor) -> Tensor:
    """Divergence of Bernoulli distributions (Kullback and Leibler), nats."""
    yes = target * (target / probability).log()
    return yes + (1 - target) * ((1 - target) / (1 - probability)).log()


def _at(nearby: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Values (B, K) of (B, H, W) maps at the pixels nearest to points, and which of them count."""
    height, width = nearby.shape[1:]
    x, y = points.clamp(-1e6, 1e6).round().long().unbind(dim=2)
    within = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    values = nearby.flatten(1).gather(1, index)
    return values.clamp(1e-4, 1 - 1e-4), within & (values > 0)
