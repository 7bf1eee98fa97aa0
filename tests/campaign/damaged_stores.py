"""Files that this project writes, and its caches, damaged; and options of what it exports."""

from __future__ import annotations

import functools
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from calls import LITE, detector
from damaged import EACH, SMALL, Runs, damaged
from kinds import Case, check, kind
from results import check_result

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.backends import cache
from cv_superpoint.export import export_onnx
from cv_superpoint.extract import ExtractConfig, extract_folder
from cv_superpoint.interop import colmap, hloc
from cv_superpoint.weights import load_weights
from train.learning import checkpoint
from train.settings import RunSettings
from train.stages.adapt import read_label


@kind
def parameters(case: Case) -> None:
    """Files of parameters."""
    source = detector("ncnn", LITE, maxKeypoints=7, scales=(1.0, 0.5))
    model = SuperPointFeature2D.create(weights=LITE, backend="ncnn", threads=1)
    for _ in range(EACH):
        path = case.folder / case.choose(["a.yml", "a.xml", "a.json", "a.yml.gz", "a.json.gz"])
        source.save(path)
        path.write_bytes(damaged(case, path.read_bytes(), head=200))
        case.notes[:] = [path.name, repr(path.read_bytes())]
        with case.call():
            model.read(str(path))
            check_result(model.extract(SMALL), SMALL.shape, model.getMaxKeypoints())


@functools.cache
def _features() -> dict[str, Any]:
    model = detector("ncnn", LITE, maxKeypoints=30)
    images = {f"{k}.png": np.roll(SMALL, 9 * k, axis=1) for k in range(3)}
    return {name: model.extract(image) for name, image in images.items()}


@kind
def hdf5(case: Case) -> None:
    """Files of features and matches in hloc's layout."""
    path, matched = case.folder / "features.h5", case.folder / "matches.h5"
    hloc.write_features(path, _features())
    rows = np.array([[0, 1], [2, 0]])
    hloc.write_matches(matched, {("0.png", "1.png"): (rows, np.ones(2), 20)})
    both = path.read_bytes(), matched.read_bytes()
    for _ in range(EACH):
        path.write_bytes(damaged(case, both[0], head=3000))
        matched.write_bytes(damaged(case, both[1], head=3000))
        for read in (
            lambda: [hloc.read_features(path, name) for name in hloc.image_names(path)],
            lambda: hloc.read_features(path, "1.png"),
            lambda: hloc.read_matches(matched, "0.png", "1.png"),
        ):
            with case.call():
                read()


@kind
def colmap_databases(case: Case) -> None:
    """COLMAP's databases: read, added to, verified."""
    whole = case.folder / "whole.db"
    pairs = {("0.png", "1.png"): np.array([[k, k] for k in range(5)])}
    colmap.write_database(whole, _features(), pairs)
    data = whole.read_bytes()
    path = case.folder / "damaged.db"
    for _ in range(EACH // 4):
        path.write_bytes(damaged(case, data, head=4096 * int(case.random.integers(1, 20))))
        before = path.read_bytes()
        failed = True
        with case.call():
            colmap.write_database(path, {"new.png": _features()["2.png"]}, {})
            failed = False
        check(not failed or path.read_bytes() == before, "an error changed the database")
        with case.call():
            colmap.read_keypoints(path, "1.png")
        with case.call():
            colmap.verify_database(path, list(pairs))


@kind
def extraction_state(case: Case) -> None:
    """A folder of shards, a finished file and their records, damaged between two runs."""
    photographs = case.folder / "photographs"
    photographs.mkdir()
    for k in range(3):
        cv2.imwrite(str(photographs / f"{k}.png"), np.roll(SMALL, 9 * k, axis=1))
    config = ExtractConfig(weights=LITE, max_keypoints=20, shard_size=1, backend="ncnn", threads=1)
    for parquet in (False, True):
        output = case.folder / ("shards" if parquet else "features.h5")
        extract_folder(photographs, output, config, readers=0)
        files = sorted(output.iterdir()) if parquet else [output]
        wholes = {path: path.read_bytes() for path in files}
        for _ in range(3):
            for path, whole in wholes.items():
                path.write_bytes(whole)
            target = case.choose(files)
            target.write_bytes(damaged(case, wholes[target], head=2000))
            case.notes[:] = [f"{target.name}"]
            with case.call():
                report = extract_folder(photographs, output, config, readers=0)
                check(report.images == 3, f"{report.images} of 3 images")


@functools.cache
def _checkpoint() -> bytes:
    net = load_weights(LITE).net
    optimizer = torch.optim.Adam(net.parameters())
    buffer = io.BytesIO()
    state = {"network": net.state_dict(), "averaged": net.state_dict(), "step": 7, "elapsed": 1.5}
    torch.save({**state, "optimizer": optimizer.state_dict(), "finished": False}, buffer)
    return buffer.getvalue()


@kind
def checkpoints(case: Case) -> None:
    """Checkpoints of the training, its record and its labels."""
    label = io.BytesIO()
    np.save(label, np.random.default_rng(0).random((50, 3)).astype(np.float32))
    settings = json.dumps({"stages": {"a": {"loop": {}}}, "photographs": {}, "held_out": []})
    trap = case.folder / "trap"
    hostile = io.BytesIO()
    np.save(hostile, np.array([Runs(trap)], object), allow_pickle=True)
    wholes: dict[str, tuple[bytes, Callable[[Path], Any]]] = {
        "joint.pt": (_checkpoint(), checkpoint.load),
        "label.npy": (label.getvalue(), read_label),
        "hostile.npy": (hostile.getvalue(), read_label),
        "settings.json": (settings.encode(), lambda path: RunSettings.read(path.parent)),
    }
    for _ in range(EACH):
        name = case.choose(sorted(wholes))
        whole, read = wholes[name]
        path = case.folder / name
        path.write_bytes(damaged(case, whole, head=300 if name != "joint.pt" else 4000))
        case.notes[:] = [name, path.read_bytes()[:200]]
        with case.call(ValueError):
            found = read(path)
            if name.endswith(".npy") and found is not None:
                check(found.ndim == 2 and found.shape[1] == 3, f"labels of shape {found.shape}")
                check(found.dtype == np.float32 and np.isfinite(found).all(), "labels not finite")
        path.unlink()
    check(not trap.exists(), "code in a label file ran")


@kind
def compiled_models(case: Case) -> None:
    """The cache of compiled networks: damaged, it is made again."""
    before = os.environ.get(cache.ENVIRONMENT)
    os.environ[cache.ENVIRONMENT] = str(case.folder / "cache")
    try:
        for backend in ("openvino", "onnxruntime"):
            options = {"backend": backend, "threads": 1, "precision": "float32"}
            first = SuperPointFeature2D.create(weights=LITE, **options).extract(SMALL)
            for path in sorted((case.folder / "cache").glob("*")):
                path.write_bytes(damaged(case, path.read_bytes(), head=100))
            with case.call():
                again = SuperPointFeature2D.create(weights=LITE, **options).extract(SMALL)
                check(np.array_equal(again.keypoints, first.keypoints), "other keypoints")
    finally:
        if before is None:
            del os.environ[cache.ENVIRONMENT]
        else:
            os.environ[cache.ENVIRONMENT] = before


USUAL: dict[str, list[Any]] = {
    "size": [(64, 80), (80, 64), (16, 16), (96, 128)],
    "batch": [1, 1, 2],
    "max_keypoints": [1, 5, 64],
    "score_threshold": [0.01, 0, 0.3, 0.999],
    "nms_radius": [0, 1, 4, 9],
    "score_radius": [0, 2, 5],
    "border_margin": [0, 4, 100],
    "subpixel": [True, False],
}
STRANGE: dict[str, list[Any]] = {
    "size": [(8, 8), (7, 8), (0, 8), (-8, 8), (10**6, 8), (2**40, 8), (8,), "ab", None],
    "batch": [0, -1, 2.5, "x"],
    "max_keypoints": [0, -1, 10**9, None],
    "score_threshold": [None, 1, -0.1, float("nan"), "x"],
    "nms_radius": [100, -1, 10**9],
    "score_radius": [None, 30, -1, 10**6],
    "border_margin": [-1, 10**9],
    "subpixel": [None, 2],
}


@kind
def onnx_files(case: Case) -> None:
    """Options of the ONNX export: refused by name, or a file that a runtime reads and runs."""
    import onnxruntime

    for _ in range(4):
        options = {name: case.choose(values) for name, values in USUAL.items()}
        if case.random.integers(2):
            name = case.choose(sorted(STRANGE))
            options[name] = case.choose(STRANGE[name])
        layout = case.choose(["heads", "full", "full", "disk", "disk", "other"])
        options["batch"] = 1 if layout == "disk" else options["batch"]
        path = case.folder / case.choose(["a.onnx", "a.onnx", "a.onnx", "a.pb"])
        case.notes[:] = [layout, options]
        with case.call(ValueError):
            export_onnx(LITE, path, layout, **options)
            session = onnxruntime.InferenceSession(str(path))
            height, width = options["size"] if layout != "heads" else (64, 80)
            count = options["batch"] if layout != "heads" else 1
            image = cv2.resize(SMALL, (width, height)).transpose(2, 0, 1)[None] / np.float32(255)
            batch = np.repeat(image[:, : session.get_inputs()[0].shape[1]], count, axis=0)
            found = session.run(None, {session.get_inputs()[0].name: batch.astype(np.float32)})
            check(all(np.isfinite(each).all() for each in found), "outputs are not finite")
