"""The matchers that come with the package: section ``matchers`` of the weights' manifest.

An entry has the name of the set of weights whose features it matches, and the digest of that set's
tensors, so that a new training of the set is not given a matcher of the old one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cv_superpoint.errors import FeatureError
from cv_superpoint.files import replace_file
from cv_superpoint.files.fingerprint import sha256_of
from cv_superpoint.matching.lightglue.files import (
    LoadedMatcher,
    check_threshold,
    load_matcher,
    parse_matcher,
)
from cv_superpoint.weights.compact import FITTED_TO
from cv_superpoint.weights.files import WeightsError
from cv_superpoint.weights.store import load_weights, read_manifest, read_named

SUFFIX = ".matcher.safetensors"
LICENCE = "Apache-2.0"


def available_matchers() -> tuple[str, ...]:
    """Names of the sets of weights that have a bundled matcher.

    Raises:
        WeightsError: If the installation's manifest is missing or damaged.
    """
    return tuple(sorted(read_manifest()["matchers"]))


def find_matcher(name: str | os.PathLike[str] | None) -> LoadedMatcher:
    """A matcher by name or file.

    Args:
        name: Name of a bundled set of weights, path of a file, or None for the default set.

    Raises:
        WeightsError: If there is none, or the file is damaged or something else.
        FeatureError: If the set has no descriptors.
    """
    if name is not None and not isinstance(name, (str, os.PathLike)):
        raise WeightsError(
            f"weights must be a bundled name, a path or None, got {type(name).__name__}"
        )
    manifest = read_manifest()
    if name is None:
        name = manifest["default"] or ""
    text = os.fspath(name)
    if text in manifest["matchers"]:
        return _load_bundled(text, manifest["matchers"][text])
    path = Path(text)
    if text in manifest["weights"]:
        load_weights(text).check_descriptors()
    if text in manifest["weights"] or not (path.suffix or path.exists()):
        raise WeightsError(_none_for(text or "the default set"))
    return load_matcher(path)


def matcher_of(digest: str) -> LoadedMatcher:
    """The bundled matcher for features of the weights whose tensors have a digest.

    Raises:
        WeightsError: If there is none.
    """
    for name, entry in read_manifest()["matchers"].items():
        if entry.get(FITTED_TO) == digest:
            return _load_bundled(name, entry)
    raise WeightsError(_none_for(name_of(digest)))


def name_of(digest: str) -> str:
    """What to call the weights whose tensors have a digest."""
    for name, entry in read_manifest()["weights"].items():
        ranges = entry.get("ranges")
        if isinstance(ranges, dict) and ranges.get("tensors") == digest:
            return str(name)
    return f"other weights ({digest[:12]})"


def _none_for(name: str) -> str:
    bundled = ", ".join(available_matchers()) or "none"
    return (
        f"no matcher is bundled for {name}; with one: {bundled}. Detect with one of these, train "
        "one with python -m train matcher and name its file, or match mutual nearest neighbours"
    )


def _load_bundled(name: str, entry: Mapping[str, Any]) -> LoadedMatcher:
    path, data, _ = read_named(name, entry)
    loaded = parse_matcher(data, path)
    try:
        threshold = check_threshold(entry.get("threshold"))
    except FeatureError as error:
        raise WeightsError(f"manifest entry {name!r} of matchers: {error}; reinstall") from error
    if entry.get("architecture") != asdict(loaded.config):
        raise WeightsError(
            f"manifest entry {name!r} of matchers: expected the architecture "
            f"{asdict(loaded.config)}, got {entry.get('architecture')}; reinstall"
        )
    return replace(
        loaded,
        weights=name,
        threshold=threshold,
        fitted_to=str(entry.get(FITTED_TO, "")),
        recipe=entry.get("recipe"),
        commit=entry.get("commit"),
        licence=entry.get("licence"),
    )


def bundle(
    source: str | os.PathLike[str], folder: str | os.PathLike[str], threshold: float | None = None
) -> dict[str, Any]:
    """Put a matcher into a checkout's folder of weights, and its entry into the manifest there.

    Args:
        source: File that ``python -m train matcher`` wrote.
        folder: Folder of weights in the checkout, with ``manifest.json``.
        threshold: Recommended score; the file's own by default.

    Returns:
        The entry.

    Raises:
        WeightsError: If the file is no matcher, or of features of weights that are not bundled.
    """
    loaded, folder = load_matcher(source), Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    name = loaded.weights
    if name not in manifest["weights"]:
        raise WeightsError(f"{source}: a matcher for {name}, which is not bundled; bundle it first")
    digest = load_weights(folder / manifest["weights"][name]["file"]).tensor_digest
    if loaded.fitted_to not in ("", digest):
        raise WeightsError(
            f"{source}: learned from other weights than the bundled {name}; train it again"
        )
    target = folder / f"{name}{SUFFIX}"
    replace_file(target, Path(source).read_bytes())
    entry = {
        "file": target.name,
        "sha256": sha256_of(target),
        "architecture": asdict(loaded.config),
        FITTED_TO: digest,
        "threshold": loaded.threshold if threshold is None else check_threshold(threshold),
        "recipe": loaded.recipe,
        "commit": loaded.commit,
        "licence": LICENCE,
    }
    manifest.setdefault("matchers", {})[name] = entry
    replace_file(folder / "manifest.json", (json.dumps(manifest, indent=2) + "\n").encode())
    return entry
