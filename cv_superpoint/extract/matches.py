"""Matches of the pictures of a folder, from their features: to hloc's layout, and to COLMAP."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cv_superpoint.decoding.descriptors import DescriptorFormat, Encoder
from cv_superpoint.detector.features import Features
from cv_superpoint.errors import require
from cv_superpoint.extract import store
from cv_superpoint.extract.pairs import ALL, check_pairs, choose_pairs
from cv_superpoint.extract.parts import MatchParts, check_names, count_matches
from cv_superpoint.extract.plan import ExtractConfig, ExtractError
from cv_superpoint.files.fingerprint import sha256_of
from cv_superpoint.files.record import as_stored
from cv_superpoint.interop import colmap, hloc
from cv_superpoint.interop.checks import Pair
from cv_superpoint.matching.matchers import (
    LearnedMatcher,
    Matcher,
    build_matcher,
    check_matches,
)
from cv_superpoint.matching.nearest import Pairs
from cv_superpoint.weights import LoadedWeights, load_weights

if TYPE_CHECKING:
    from cv_superpoint.matching.lightglue import LightGlueMatcher

VERSION = 1
"""Version of the matches: it changes where the same options give others."""
PART = 512
"""Pairs of a part."""
TOGETHER = 16
"""Pairs that are matched in one call."""
KEPT = 256
"""Pictures whose features stay in memory, at about a megabyte each."""


@dataclass(frozen=True, kw_only=True)
class MatchConfig:
    """How pictures are matched.

    Attributes:
        matcher: lightglue, the learned matcher of the weights; mutual, ratio or another name that
            all commands know; a matcher's file; or module:factory.
        pairs: all; a number, of the pictures behind each in the order of names; or a file with two
            names on each line.
    """

    matcher: str = "lightglue"
    pairs: str = ALL


@dataclass(frozen=True, kw_only=True)
class MatchReport:
    """Result of a run.

    Attributes:
        output: The file of matches.
        pairs: Number of pairs that were asked for.
        matches: Number of their matches.
        resumed: Number of pairs that an earlier run had done.
        verified: Number of pairs in COLMAP's database that have matches; None without one.
    """

    output: Path
    pairs: int
    matches: int
    resumed: int
    verified: int | None = None


def check_matching(
    features: Path,
    output: Path,
    extracted: ExtractConfig,
    config: MatchConfig,
    database: Path | None = None,
) -> None:
    """Check that pictures can be matched, before their features are extracted.

    Args:
        features: Same as for :func:`match_images`.
        output: Same as for :func:`match_images`.
        extracted: Same as for :func:`match_images`.
        config: Same as for :func:`match_images`.
        database: Same as for :func:`match_images`.

    Raises:
        ExtractError: If they cannot.
        WeightsError: If the weights have no matcher.
        ImportError: If a package is missing.
    """
    for path in (features, output):
        if path.suffix not in (".h5", ".hdf5"):
            raise ExtractError(
                f"{path}: features and matches must be files ending in .h5 to be matched"
            )
    if features.resolve() == output.resolve():
        raise ExtractError(f"{output} is the file of the features; name another one for matches")
    require("h5py", "sfm")
    if database is not None:
        require("pycolmap", "sfm")
    check_pairs(config.pairs)
    _make_matcher(config.matcher, extracted)


def match_images(
    features: Path,
    output: Path,
    extracted: ExtractConfig,
    config: MatchConfig | None = None,
    *,
    database: Path | None = None,
    left_out: Collection[str] = (),
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> MatchReport:
    """Match pictures whose features :func:`~cv_superpoint.extract.extract_folder` wrote.

    A run that was stopped continues. A finished one takes in new pairs and changed pictures.

    Args:
        features: File of features.
        output: File of matches, ending in ``.h5``, in hloc's layout.
        extracted: What the features were extracted with.
        config: Options of pairs and matcher; by default those of :class:`MatchConfig`.
        database: COLMAP's database to write them to as well, with verified geometries.
        left_out: Names of pictures without features, whose pairs are left out.
        tick: Function that is called with the number of pairs done and their total.

    Raises:
        ExtractError: If the run cannot start or continue; run again after the remedy.
        StoreError: If a file is damaged, or the database has other features or matches.
    """
    config = config or MatchConfig()
    check_matching(features, output, extracted, config, database)
    matcher, identity = _make_matcher(config.matcher, extracted)
    made_with = store.settings_before(Path(), features)
    pictures = store.done_in_file(features, made_with or {})
    pairs = choose_pairs(config.pairs, sorted(pictures), left_out)
    check_names(pairs)
    stored = _Stored(features, sorted(pictures), load_weights(extracted.weights).tensor_digest)
    parts = MatchParts(
        output=output,
        settings=as_stored({"version": VERSION, "matcher": identity, "features": made_with}),
        sums={name: each.file.sha256 for name, each in pictures.items()},
    )
    before = parts.done()
    missing = [pair for pair in pairs if pair not in before]
    done = len(pairs) - len(missing)
    tick(done, len(pairs))
    for start in range(0, len(missing), PART):
        found: dict[Pair, Pairs] = {}
        for pair, one in _matched(matcher, stored, missing[start : start + PART]):
            found[pair] = one
            tick(done + start + len(found), len(pairs))
        parts.write(found, pictures)
    parts.conclude()
    counts = count_matches(output, pairs)
    with_matches = [pair for pair in pairs if counts[pair]]
    if database is not None:
        _write_colmap(database, stored, output, with_matches)
    return MatchReport(
        output=output,
        pairs=len(pairs),
        matches=sum(counts.values()),
        resumed=done,
        verified=None if database is None else len(with_matches),
    )


class _Stored(Mapping[str, Features]):
    """The features in a file, read when they are asked for."""

    def __init__(self, path: Path, names: Sequence[str], weights: str) -> None:
        self._path, self._names, self._weights = path, names, weights
        self._read = lru_cache(KEPT)(self._of)

    def _of(self, name: str) -> Features:
        return replace(hloc.read_features(self._path, name), weights=self._weights)

    def __getitem__(self, name: str) -> Features:
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _make_matcher(name: str, extracted: ExtractConfig) -> tuple[Matcher, dict[str, Any]]:
    """The matcher, and all that its matches depend on besides the features."""
    from cv_superpoint.matching.lightglue import LightGlueMatcher

    matcher, weights = build_matcher(name), load_weights(extracted.weights)
    if isinstance(matcher, LearnedMatcher):
        matcher = matcher.load(weights.tensor_digest)
    if not isinstance(matcher, LightGlueMatcher):
        return matcher, {"name": name}
    _check_descriptors(matcher, extracted, weights)
    return matcher, {
        "name": "lightglue",
        "sha256": sha256_of(matcher.loaded.path),
        "threshold": matcher.threshold,
    }


def _check_descriptors(
    matcher: LightGlueMatcher, extracted: ExtractConfig, weights: LoadedWeights
) -> None:
    format = DescriptorFormat(kind=extracted.descriptor_format, dim=extracted.descriptor_dim)
    encoder = Encoder.of(format, weights.config.descriptor_dim, weights.compaction)
    length = matcher.loaded.config.descriptor_dim
    if encoder.format.kind == "binary" or encoder.numbers != length:
        raise ExtractError(
            f"the learned matcher needs all {length} numbers of a descriptor; extract without "
            "--descriptor-dim and with float32 or uint8, or take --matcher mutual"
        )


def _matched(
    matcher: Matcher, features: Mapping[str, Features], pairs: Sequence[Pair]
) -> Iterator[tuple[Pair, Pairs]]:
    for start in range(0, len(pairs), TOGETHER):
        some = pairs[start : start + TOGETHER]
        both = [(features[one], features[other]) for one, other in some]
        batched = getattr(matcher, "matchBatch", None)
        found = batched(both) if batched else [matcher(*each) for each in both]
        for pair, one, each in zip(some, found, both, strict=True):
            yield pair, check_matches(one, *each)


def _write_colmap(
    database: Path, features: Mapping[str, Features], matches: Path, pairs: Sequence[Pair]
) -> None:
    """Write the database, or verify what a stopped run did not get to."""
    rows = {pair: hloc.read_matches(matches, *pair)[0] for pair in pairs}
    if not colmap.holds(database, features, rows):
        colmap.write_database(database, features, rows)
    if missing := colmap.unverified(database, pairs):
        colmap.verify_database(database, missing)
