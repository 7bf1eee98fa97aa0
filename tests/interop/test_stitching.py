"""Panoramas of cameras that turned, of flat scenes, and of pictures that make none.

OpenCV's matches differ between its versions, so places are compared to within 2 pixels.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from pinned import PINNED
from views import FOCAL, oblique, photograph, turned

from cv_superpoint import FeatureError, Features, MatchResult, SuperPointFeature2D, match_pair
from cv_superpoint.cli import main
from cv_superpoint.interop import stitching
from cv_superpoint.interop.stitching import StitchError, stitch
from cv_superpoint.interop.stitching.pairs import match_all
from cv_superpoint.matching.matchers import NearestNeighbours


class Remembering:
    """A detector that finds the keypoints of a picture once."""

    def __init__(self) -> None:
        self.detector = SuperPointFeature2D.create(800, **PINNED)
        self.known: dict[Any, Features] = {}

    def extract(self, image: Any, mask: Any = None) -> Features:
        key = image.shape, np.ascontiguousarray(image).tobytes()
        if key not in self.known:
            self.known[key] = self.detector.extract(image, mask)
        return self.known[key]


@pytest.fixture(scope="module")
def stitcher() -> Remembering:
    return Remembering()


def shows(panorama: Any, detector: Remembering, *, at_least: float, within: float = 25) -> None:
    """Check that a panorama is the photograph under one homography: same pixels, no seam, no ghost.

    ``within`` bounds nine tenths of the differences in grey levels; on a cylinder, which no
    homography flattens, they are larger.
    """
    source = photograph()
    found = match_pair(source, panorama, detector, rotations=(0, 90, 180, 270))
    assert found.homography is not None
    size = panorama.shape[1], panorama.shape[0]
    placed = cv2.warpPerspective(source, found.homography, size)
    there = cv2.warpPerspective(np.full(source.shape[:2], 255, np.uint8), found.homography, size)
    both = cv2.erode(np.minimum(there, 255 * (panorama.max(axis=2) > 8).astype(np.uint8)), None)
    assert (both > 0).sum() >= at_least * source.shape[0] * source.shape[1]
    difference = np.abs(placed.astype(int) - panorama).mean(axis=2)[both > 0]
    assert np.median(difference) < within / 3
    assert np.percentile(difference, 90) < within


# ---- with a matcher of ours ----


def test_a_matcher_of_ours_takes_the_place_of_opencvs(stitcher: Remembering) -> None:
    views = [turned(yaw) for yaw in (-12, 0, 12)]
    made = stitch(views, stitcher, matcher=NearestNeighbours(max_ratio=0.95))
    usual = stitch(views, stitcher)
    shows(made.image, stitcher, at_least=0.5, within=60)
    np.testing.assert_allclose(made.focal_lengths, usual.focal_lengths, rtol=0.03)
    features = [stitcher.extract(view) for view in views]
    for pair in made.pairs:
        assert pair.reliable
        rows, _ = NearestNeighbours(max_ratio=0.95)(features[pair.first], features[pair.second])
        assert pair.matches == len(rows) > pair.inliers > 30
    flat = [np.ascontiguousarray(photograph()[:, part]) for part in (slice(400), slice(200, 600))]
    assert stitch(flat, stitcher, model="plane", matcher=NearestNeighbours()).pairs[0].reliable
    unrelated = [views[0], np.ascontiguousarray(skimage.data.chelsea()[..., ::-1])]
    with pytest.raises(StitchError, match="no two pictures belong together"):
        stitch(unrelated, stitcher, matcher=NearestNeighbours())
    with pytest.raises(StitchError, match="no two pictures belong together"):
        stitch([views[0], np.zeros((100, 100), np.uint8)], stitcher, matcher=NearestNeighbours())


# ---- a camera that turned ----


def test_a_photograph_is_put_together_again(stitcher: Remembering) -> None:
    source = photograph()
    result = stitch([source[:, :360], source[:, 220:]], stitcher)
    assert result.image.shape[1] > 500
    assert len(result.keypoints) == len(result.focal_lengths) == 2
    assert result.used == (0, 1)
    assert result.pairs[0].inliers > 20
    # The middle of the photograph, from both pictures, is in the panorama.
    middle = source[150:250, 250:350]
    seen = cv2.matchTemplate(result.image, middle, cv2.TM_CCOEFF_NORMED)
    assert seen.max() > 0.9


@pytest.mark.parametrize(
    ("views", "size"),
    [
        ([(-8,), (8,)], (300, 553)),
        ([(0, -6), (0, 6)], (440, 414)),  # up and down: the cylinder must not lie on its side
        ([(-8,), (8, 0, 90)], (400, 506)),  # one held upright
        ([(-8,), (8, 0, 180)], (300, 553)),
        ([(-8, 2, 5), (0, -2, -4), (8, 1, 20)], (390, 582)),
    ],
)
def test_a_camera_that_turned(views: Any, size: Any, stitcher: Remembering) -> None:
    result = stitch([turned(*view) for view in views], stitcher)
    np.testing.assert_allclose(result.focal_lengths, FOCAL, rtol=0.06)
    np.testing.assert_allclose(result.image.shape[:2], size, rtol=0.08)
    assert (result.image.max(axis=2) > 0).mean() > 0.6
    shows(result.image, stitcher, at_least=0.5, within=45)


def test_a_camera_that_zoomed(stitcher: Remembering) -> None:
    result = stitch([turned(-8), turned(8, focal=1.3 * FOCAL)], stitcher)
    assert result.focal_lengths[1] / result.focal_lengths[0] == pytest.approx(1.3, rel=0.05)


# ---- pictures that add nothing ----

noise = np.random.default_rng(0).normal(0, 4, (400, 600, 3))
SAME = {
    "the same picture twice": [photograph(), photograph()],
    "a camera that was not moved": [
        photograph(),
        np.clip(photograph() + noise, 0, 255).astype(np.uint8),
    ],
    "three exposures": [cv2.convertScaleAbs(photograph(), alpha=gain) for gain in (0.7, 1.0, 1.2)],
    "a camera on a shaky tripod": [photograph()[:-2, :-2], photograph()[1:-1, 1:-1]],
    "in two sizes": [photograph(), cv2.resize(photograph(), (480, 320))],
    "turned by a quarter": [photograph(), np.ascontiguousarray(np.rot90(photograph()))],
    "turned by half": [photograph(), np.ascontiguousarray(np.rot90(photograph(), 2))],
}


@pytest.mark.parametrize("model", ["rotation", "plane"])
@pytest.mark.parametrize("case", SAME)
def test_the_same_view_is_no_panorama(case: str, model: Any, stitcher: Remembering) -> None:
    with pytest.raises(StitchError, match="pictures show the same view"):
        stitch(SAME[case], stitcher, model=model)


def test_a_view_that_is_there_twice_is_used_once(stitcher: Remembering) -> None:
    left, right = turned(-8), turned(8)
    once = stitch([left, right], stitcher)
    result = stitch([left, left, right, right[:-1]], stitcher)
    assert result.used == (0, 2)
    assert len(result.pairs) == 6
    np.testing.assert_allclose(result.image.shape, once.image.shape, atol=8)


def test_a_small_step_is_a_panorama(stitcher: Remembering) -> None:
    # OpenCV's own confidence calls pictures with so much in common unrelated.
    source = photograph()
    for model, exact in (("rotation", False), ("plane", True)):
        result = stitch([source[:, :-30], source[:, 30:]], stitcher, model=model)  # type: ignore[arg-type]
        np.testing.assert_allclose(result.image.shape[:2], (400, 600), atol=0 if exact else 12)


def test_a_narrow_overlap_is_enough(stitcher: Remembering) -> None:
    # Of all matches few are in the overlap: OpenCV's confidence, which wants .8, is low.
    source = photograph()
    result = stitch([source[:, :340], source[:, 250:]], stitcher, model="plane")
    assert result.pairs[0].confidence < 0.8
    assert result.pairs[0].reliable
    np.testing.assert_allclose(result.image.shape, source.shape, atol=3)
    shows(result.image, stitcher, at_least=0.97, within=45)


# ---- a flat scene ----

MURAL = [
    oblique([[-40, -30], [760, 60], [760, 330], [-40, 430]]),
    oblique([[-260, 80], [640, -30], [640, 430], [-260, 320]]),
]


def test_a_mural_is_no_view_of_a_turning_camera(stitcher: Remembering) -> None:
    says = r"no turning camera fits the pictures: 1 and 2 miss .* choose the model \"plane\""
    with pytest.raises(StitchError, match=says):
        stitch(MURAL, stitcher)
    result = stitch(MURAL, stitcher, model="plane")
    assert result.focal_lengths == ()
    shows(result.image, stitcher, at_least=0.8)


PIECES = [photograph()[y : y + 240, x : x + 340] for y in (0, 160) for x in (0, 130, 260)]


def test_a_page_scanned_in_pieces(stitcher: Remembering) -> None:
    turned_piece = np.ascontiguousarray(np.rot90(PIECES[3]))
    result = stitch([*PIECES[:3], turned_piece, *PIECES[4:]], stitcher, model="plane")
    # Six pieces in two rows: the errors of a chain would add up.
    np.testing.assert_allclose(sorted(result.image.shape[:2]), (400, 600), atol=2)
    shows(result.image, stitcher, at_least=0.97)


@pytest.mark.parametrize("model", ["rotation", "plane"])
def test_a_panorama_depends_on_no_call_before_it(model: Any, stitcher: Remembering) -> None:
    views = [turned(-8), turned(8)] if model == "rotation" else PIECES
    made = []
    for seed, threads in ((19, 1), (28, 2), (None, 1)):
        if seed is not None:
            cv2.setRNGSeed(seed)
        cv2.setNumThreads(threads)
        made.append(stitch(views, stitcher, model=model).image)
    np.testing.assert_array_equal(made[1], made[0])
    np.testing.assert_array_equal(made[2], made[0])


def test_a_panorama_leaves_the_callers_generator_alone(stitcher: Remembering) -> None:
    drawn = []
    for between in (False, True):
        cv2.setRNGSeed(7)
        if between:
            match_all([stitcher.extract(each) for each in (turned(-8), turned(8))])
        drawn.append(cv2.randu(np.zeros((4, 4)), 0, 1))
    np.testing.assert_array_equal(drawn[0], drawn[1])


def test_views_that_are_not_of_one_plane(stitcher: Remembering) -> None:
    source = photograph()
    bent = [source[:, :400], source[:, 100:500], source[:, 200:]]
    # The middle view is right for its neighbours in its halves only.
    bent[1] = np.ascontiguousarray(np.hstack([bent[1][:, :200], np.roll(bent[1][:, 200:], 40, 0)]))
    with pytest.raises(StitchError, match=r'no plane fits .* choose the model "rotation"'):
        stitch(bent, stitcher, model="plane")


# ---- what makes no panorama ----


def test_what_does_not_belong_together(stitcher: Remembering) -> None:
    coffee = photograph()
    cat = skimage.data.chelsea()
    with pytest.raises(StitchError, match="two pictures or more, got 1"):
        stitch([coffee], stitcher)
    with pytest.raises(StitchError, match=r"belong together .*leave the others out"):
        stitch([coffee, cat], stitcher, megapixels=0.05)
    with pytest.raises(StitchError, match="only pictures 1, 3 belong together"):
        stitch([coffee[:, :380], cat, coffee[:, 200:]], stitcher)
    flat = np.full((100, 120), 127, np.uint8)
    with pytest.raises(StitchError, match="belong together"):
        stitch([flat, flat], stitcher)
    with pytest.raises(FeatureError, match="megapixels must be"):
        stitch([flat, flat], stitcher, megapixels=0)
    with pytest.raises(FeatureError, match='model must be "rotation" or "plane", got \'affine\''):
        stitch([flat, flat], stitcher, model="affine")  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["rotation", "plane"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 600), (400, 2), (20, 20)])
@pytest.mark.parametrize("order", ["twice", "last", "first"])
def test_slivers_are_one_error(shape: Any, order: str, model: Any, stitcher: Remembering) -> None:
    source = photograph()
    piece = source[200 : 200 + shape[0], : shape[1]]
    pictures = {"twice": [piece, piece], "last": [source, piece], "first": [piece, source[100:300]]}
    with pytest.raises(StitchError) as caught:
        stitch(pictures[order], stitcher, model=model)
    assert "\n" not in str(caught.value)


def test_a_camera_that_moved_is_refused_or_fits(stitcher: Remembering) -> None:
    left, right, _ = skimage.data.stereo_motorcycle()
    try:
        result = stitch([left, right], stitcher)
    except StitchError as error:
        assert "choose the model" in str(error)  # noqa: PT017 - either is right
    else:
        assert 700 < result.image.shape[1] < 1200


def test_pictures_are_shrunk() -> None:
    image = np.zeros((1000, 2000, 3), np.uint8)
    assert stitching.shrink(image, None) is image
    assert stitching.shrink(image, 3) is image
    assert stitching.shrink(image, 0.5).shape == (500, 1000, 3)
    assert stitching.shrink(image, 1e-9).shape == (1, 1, 3)


# ---- OpenCV's objects, and the command ----


def test_image_features_reach_opencvs_matcher(pair: MatchResult, empty: Features) -> None:
    ours = [
        stitching.to_image_features(each, index)
        for index, each in enumerate((pair.features0, pair.features1, empty))
    ]
    assert [each.img_idx for each in ours] == [0, 1, 2]
    assert ours[0].img_size == (741, 500)
    np.testing.assert_allclose(
        cv2.KeyPoint.convert(ours[0].getKeypoints()), pair.features0.keypoints
    )
    np.testing.assert_array_equal(ours[0].descriptors.get(), pair.features0.descriptors)
    matcher = cv2.detail.BestOf2NearestMatcher(False, 0.1)
    found = matcher.apply(ours[0], ours[1])
    rows = {(match.queryIdx, match.trainIdx) for match in found.getMatches()}
    known = set(map(tuple, pair.matches[pair.inliers].tolist()))
    assert len(rows & known) > 0.5 * len(known)


def test_the_command_says_it_in_one_line_with_names(tmp_path: Path, capfd: Any) -> None:
    for number, image in enumerate((*MURAL, photograph())):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    names = [str(tmp_path / f"{number}.png") for number in range(3)]
    copy = str(shutil.copy(names[2], tmp_path / "copy.png"))
    out = tmp_path / "out" / "panorama.png"
    for arguments, says in (
        (names[:2], f"no turning camera fits the pictures: 1 and 2 miss .*1 is {names[0]}, 2 is"),
        ([names[2], copy], "show the same view"),
        ([names[2], copy, "--megapixels", "1e-9"], "no two pictures belong together"),
    ):
        assert main(["stitch", *arguments, "-o", str(out)]) == 1
        said = capfd.readouterr().err
        assert said.count("\n") == 1
        assert said.startswith("error: ")
        assert "choose" not in said or "plane" in said
        assert re.search(says, said), said
        assert not out.exists()
    assert main(["stitch", *names[:2], "--model", "plane", "-o", str(out), "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert [each["image"] for each in report["pictures"]] == names[:2]
    assert report["used"] == [0, 1]
    assert report["focal_lengths"] == []
    assert list(cv2.imread(str(out)).shape[:2]) == report["size"]
