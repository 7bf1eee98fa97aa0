"""Weights store: find, verify and load a network, bundled or from a file, in any known layout.

Bundled sets are in ``weights/`` (in an installed wheel ``cv_superpoint/_weights``) with a
``manifest.json`` of their checksums; they are verified on every load. A user's file may have the
layout of this project or of another release, see :mod:`cv_superpoint.weights.layouts`; the licence
of such a file applies (Magic Leap's weights are for non-commercial research only).

Importing this module does not import torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cv_superpoint.checks import check_scales
from cv_superpoint.decoding.descriptors import NOT_FITTED, Compaction, NotFitted
from cv_superpoint.decoding.options import DEFAULT, Decoding
from cv_superpoint.errors import NOT_IMPLEMENTED, FeatureError
from cv_superpoint.network.architecture import NetworkConfig
from cv_superpoint.network.weights import NetworkWeights
from cv_superpoint.weights import ranges as map_ranges
from cv_superpoint.weights.compact import beside, parse_compaction
from cv_superpoint.weights.files import WeightsError, parse_file, read_file
from cv_superpoint.weights.tensors import read_network

__all__ = ["LoadedWeights", "WeightsError", "available_weights", "load_weights"]

REPLACED = {"superpoint-rotation": "superpoint"}
"""Sets of earlier versions whose work another set does now."""
PRECISIONS = ("float32", "bfloat16", "float16", "int8")
FALLBACK_SCORE_THRESHOLD = 0.005
"""Used where neither the file nor its layout recommends a threshold."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedWeights(NetworkWeights):
    """A network's tensors, their origin, and the options that they recommend.

    Attributes:
        name: Bundled name, or the file's name.
        path: The file.
        sha256: SHA-256 of the file, hexadecimal.
        layout: Name of the checkpoint's layout.
        score_threshold: Recommended threshold of a keypoint's score.
        score_radius: Radius of the window, in pixels, whose sum of probabilities that score is; 0
            is the pixel alone, as in the paper.
        recipe: Training recipe, if recorded.
        commit: Commit of this repository that trained it, if recorded.
        licence: Licence of a bundled set; None where the file's own licence applies.
        precisions: Precisions in which these weights keep their accuracy, measured; "auto" takes no
            other.
        scales: Recommended levels of the pyramid, relative to the image.
        compaction: Components and planes for shorter descriptors, from the file next to the
            weights.
    """

    name: str
    path: Path
    sha256: str
    layout: str
    score_threshold: float
    score_radius: int = 0
    recipe: str | None = None
    commit: str | None = None
    licence: str | None = None
    precisions: tuple[str, ...] = ("float32",)
    scales: tuple[float, ...] = (1.0,)
    compaction: Compaction | NotFitted = NOT_FITTED

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return self.sha256

    def check_descriptors(self) -> None:
        """Check that these weights have descriptors: called by all that needs some.

        Raises:
            FeatureError: If they find keypoints only.
        """
        if not self.config.descriptor_dim:
            raise FeatureError(
                f"weights {self.name!r} find keypoints only, they have no descriptors; call "
                "detect(), or take other weights, such as the default ones",
                NOT_IMPLEMENTED,
            )

    def decoding(
        self,
        base: Decoding = DEFAULT,
        *,
        score_threshold: float | None = None,
        score_radius: int | None = None,
        **options: Any,
    ) -> Decoding:
        """Make the options of a decoding, with what these weights recommend by default.

        Args:
            base: Options that are not given below, except threshold and radius.
            score_threshold: None takes what the weights recommend.
            score_radius: None takes what the weights recommend. Another one needs a threshold of
                its own.
            options: Other fields of :class:`Decoding`.

        Raises:
            FeatureError: If a value is out of range, or a threshold is to be recommended for
                another radius than theirs.
            TypeError: If there is no such field.
        """
        asked = replace(
            base,
            score_threshold=self.score_threshold if score_threshold is None else score_threshold,
            score_radius=self.score_radius if score_radius is None else score_radius,
            **options,
        )
        if score_threshold is None and asked.score_radius != self.score_radius:
            raise FeatureError(
                f"weights {self.name!r} recommend a score threshold for the score radius "
                f"{self.score_radius} only; give a threshold for the radius {asked.score_radius} "
                "too"
            )
        return asked


def available_weights() -> tuple[str, ...]:
    """Names of the bundled sets.

    Raises:
        WeightsError: If the installation's manifest is missing or damaged.
    """
    return tuple(sorted(read_manifest()["weights"]))


def load_weights(weights: str | os.PathLike[str] | None = None) -> LoadedWeights:
    """Load a network, bundled or from a file.

    Nothing in a file is ever executed: pickled checkpoints are restricted to tensors.

    Args:
        weights: A bundled name, a path (``.safetensors``, or a checkpoint of ``torch.save``:
            ``.pth``, ``.pt``, ``.bin``, ``.ckpt``, ``.tar``), or None for the default set.

    Returns:
        The network's tensors and their provenance.

    Raises:
        WeightsError: If there is no such set or file, or it is damaged, of another network, or
            not the file that the manifest names.
    """
    if weights is not None and not isinstance(weights, (str, os.PathLike)):
        raise WeightsError(
            f"weights must be a bundled name, a path or None, got {type(weights).__name__}"
        )
    if weights is None:
        default = read_manifest()["default"]
        if default is None:
            raise WeightsError(
                "weights=None needs a default set, but none is bundled here; pass the path of a "
                "weights file, or train one with 'python -m train'"
            )
        return _load_bundled(default)
    text = os.fspath(weights)
    is_name = isinstance(weights, str) and Path(text).name == text
    if is_name and text in available_weights():
        return _load_bundled(text)
    path = Path(text).expanduser()
    if is_name and text in REPLACED and not path.exists():
        warnings.warn(
            f"weights={text!r} are no set of their own any more, {REPLACED[text]!r} does their "
            f"work and is taken; pass weights={REPLACED[text]!r}",
            DeprecationWarning,
            stacklevel=2,
        )
        return _load_bundled(REPLACED[text])
    if is_name and not path.suffix and not path.exists():
        raise WeightsError(_unknown_name(text))
    return _load_file(path)


def weights_folder() -> Path:
    """Where the bundled sets lie: inside an installed wheel, or in the checkout around us.

    A path inside a zip file where the package is imported from one.
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / "_weights"
    if installed.is_dir() or _archive(installed) is not None:
        return installed
    return package.parent / "weights"


def _archive(path: Path) -> Path | None:
    """The zip file that a path leads into."""
    return next((each for each in path.parents if each.is_file()), None)


def _read_installed(path: Path) -> bytes:
    archive = _archive(path)
    if archive is None:
        return path.read_bytes()
    with zipfile.ZipFile(archive) as opened:
        try:
            return opened.read(path.relative_to(archive).as_posix())
        except KeyError as error:
            raise WeightsError(
                f"{archive} holds cv_superpoint without its weights ({path.name} is missing); "
                "import it from a wheel, which has them, or install it"
            ) from error


def read_manifest() -> dict[str, Any]:
    """The list of bundled files: ``default``, and ``weights`` and ``matchers`` by name.

    Raises:
        WeightsError: If it is missing or damaged.
    """
    path = weights_folder() / "manifest.json"
    try:
        manifest = json.loads(_read_installed(path))
        default, entries = manifest["default"], manifest["weights"]
        matchers = manifest.get("matchers", {})
        every = (*entries.values(), *matchers.values())
        well_formed = all(isinstance(entry, dict) for entry in every)
        if not well_formed or (default is not None and default not in entries):
            raise FeatureError(f"default {default!r} or an entry is not as it should be")
    except WeightsError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path}: expected the list of bundled weights, which is missing or damaged "
            f"({type(error).__name__}: {error}); reinstall cv-superpoint"
        ) from error
    return {"default": default, "weights": entries, "matchers": matchers}


def _unknown_name(name: str) -> str:
    bundled = ", ".join(available_weights()) or "none"
    return (
        f"weights={name!r} is neither bundled nor a file; bundled are: {bundled}. "
        "Pass one of these or the path of a weights file"
    )


def _load_bundled(name: str) -> LoadedWeights:
    entry = read_manifest()["weights"][name]
    path, data, sha256 = read_named(name, entry)
    loaded = _build(data, path, sha256, name, entry)
    compact = entry.get("compact")
    if not isinstance(compact, dict):
        return loaded
    path, data, _ = read_named(name, compact)
    dim = loaded.config.descriptor_dim
    return replace(loaded, compaction=parse_compaction(data, path, dim, None))


def read_named(name: str, record: Mapping[str, Any]) -> tuple[Path, bytes, str]:
    """Path, content and sha256 of a file that the manifest names.

    Raises:
        WeightsError: If it is not the file that the manifest names.
    """
    file = record.get("file")
    if not isinstance(file, str) or Path(file).name != file:
        raise WeightsError(
            f"manifest entry {name!r}: expected the name of a file, got {file!r}; reinstall"
        )
    path = weights_folder() / file
    data = read_file(path) if _archive(path) is None else _read_installed(path)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != record.get("sha256"):
        raise WeightsError(
            f"{path}: expected sha256 {record.get('sha256')}, got {sha256}: the file was changed "
            "or damaged; reinstall cv-superpoint, or restore the file from version control"
        )
    return path, data, sha256


def _load_file(path: Path) -> LoadedWeights:
    data = read_file(path)
    loaded = _build(data, path, hashlib.sha256(data).hexdigest(), path.name, None)
    return replace(loaded, compaction=beside(path, loaded))


def _build(
    data: bytes, path: Path, sha256: str, name: str, entry: Mapping[str, Any] | None
) -> LoadedWeights:
    entries, metadata = parse_file(data, path)
    record = metadata if entry is None else entry
    fields = clean_fields(record, str(path))
    config = _read_config(record["architecture"], path) if "architecture" in record else None
    tensors, config, layout = read_network(entries, str(path), config)
    threshold = fields.pop("score_threshold", None)
    if threshold is None:
        threshold = layout.score_threshold or FALLBACK_SCORE_THRESHOLD
    loaded = LoadedWeights(
        config=config,
        tensors=tensors,
        name=name,
        path=path,
        sha256=sha256,
        layout=layout.name,
        score_threshold=threshold,
        licence=None if entry is None else entry.get("licence"),
        **fields,
    )
    for told in (record, metadata):  # a bundled file may bring its own
        if map_ranges.KEY in told:
            found = map_ranges.read_ranges(told[map_ranges.KEY], loaded, str(path))
            return replace(loaded, ranges=found)
    if "int8" in loaded.precisions:
        raise WeightsError(
            f"{path}: listed for precision 'int8' without ranges; {map_ranges.REMEDY}"
        )
    return loaded


def clean_fields(record: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The provenance fields of a manifest entry or of a file's metadata, checked.

    Raises:
        WeightsError: If one is out of range; the message begins with ``source``.
    """
    threshold = record.get("score_threshold")
    if threshold is not None and not (
        isinstance(threshold, (int, float)) and 0 <= threshold <= 1  # NaN fails this too
    ):
        raise WeightsError(f"{source}: score_threshold must be in [0, 1], got {threshold!r}")
    fields: dict[str, Any] = {} if threshold is None else {"score_threshold": float(threshold)}
    radius = record.get("score_radius", 0)
    if not isinstance(radius, int) or radius < 0:
        raise WeightsError(f"{source}: score_radius must be 0 or a count of pixels, got {radius!r}")
    fields["score_radius"] = radius
    for key in ("recipe", "commit"):
        if record.get(key) is not None:
            fields[key] = str(record[key])
    if record.get("scales") is not None:
        try:
            fields["scales"] = check_scales(record["scales"])
        except FeatureError as error:
            raise WeightsError(f"{source}: {error}") from error
    if record.get("precisions") is not None:
        precisions = record["precisions"]
        if not isinstance(precisions, list) or not {*map(str, precisions)} <= set(PRECISIONS):
            raise WeightsError(
                f"{source}: precisions must be a list of {', '.join(PRECISIONS)}, "
                f"got {precisions!r}"
            )
        fields["precisions"] = tuple(precisions)
    return fields


def _read_config(architecture: Any, path: Path) -> NetworkConfig:
    try:
        counts = {
            name: tuple(int(count) for count in architecture[name])
            for name in ("channels", "depths")
            if name == "channels" or name in architecture
        }
        eps = float(architecture.get("norm_eps", 1e-5))
        if not 0 < eps < 1:
            raise FeatureError(f"norm_eps must be between 0 and 1, got {eps}")
        return NetworkConfig(**{**architecture, **counts, "norm_eps": eps})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{path}: expected a recorded architecture with the fields of NetworkConfig, got "
            f"{architecture!r} ({error}); export the file again"
        ) from error
