"""What comes after detection: matches, transformations, tracks, and pictures of them.

matchers.py  the protocol of all matchers, and OpenCV's
nearest.py   mutual nearest neighbours, with tests of ratio and distance
pairs.py     two images to a homography or a fundamental matrix
verdict.py   whether chance explains the matches that agree
estimators.py  homographies and fundamental matrices of matches of which some are wrong
refining.py  matched points to where the pixels agree, on patches.py and local_warps.py
epipolar.py  the same for fundamental and essential matrices
aligning.py  homographies to where all of an overlap agrees
lightglue/   a learned matcher
guided.py    matches along a known transformation
tracking.py  points through a video
drawing.py   keypoints and matches as pictures

Programs enter, and the rooms above: interop, extract, evaluation, viewer, cli.
"""

from cv_superpoint.matching.pairs import MatchResult, match_features, match_pair

__all__ = ["MatchResult", "match_features", "match_pair"]
