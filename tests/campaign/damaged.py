"""Files of every kind, damaged: they are named in one error, or what is read of them is sound."""

from __future__ import annotations

import functools
import io
import pickle
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from calls import LITE, PHOTOGRAPH, WHOLE
from kinds import Case, check, kind
from mutation import mutate
from PIL import Image
from results import check_result

from cv_superpoint import SuperPointFeature2D
from cv_superpoint.matching.tracking import Video
from cv_superpoint.pictures.reading import load_picture
from cv_superpoint.weights import load_weights
from cv_superpoint.weights.files import write_file as write_safetensors
from cv_superpoint.weights.layouts import LAYOUTS

SMALL = PHOTOGRAPH[60:140, 180:300]
EACH = 30
"""Damaged files in a case."""


def damaged(case: Case, whole: bytes, head: int = 4096) -> bytes:
    """Other bytes than those of a whole file."""
    while (data := mutate(whole, case.random, head)) == whole:
        pass
    return data


# ---- weights ----


@functools.cache
def _weights() -> dict[str, bytes]:
    """Whole files of weights in several layouts and containers."""
    loaded = load_weights(LITE)
    files = {"ours.safetensors": loaded.path.read_bytes()}
    state = loaded.net.state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    files["ours.pth"] = buffer.getvalue()
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    files["old.pth"] = buffer.getvalue()
    default = load_weights(WHOLE)
    for layout in LAYOUTS:
        try:
            arrays = {theirs: default.tensors[ours] for ours, theirs in layout.keys().items()}
        except KeyError:  # of another network
            continue
        buffer = io.BytesIO()
        torch.save({key: torch.from_numpy(array.copy()) for key, array in arrays.items()}, buffer)
        files[f"{layout.name.split()[0].lower()}.pth"] = buffer.getvalue()
    return files


class Runs:
    """A pickle that runs code where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@kind
def weights(case: Case) -> None:
    """Weights: damage anywhere, most of it in the header."""
    names = sorted(_weights())
    for _ in range(8):
        name = case.choose(names)
        path = case.folder / name
        path.write_bytes(damaged(case, _weights()[name], head=3000))
        case.notes[:] = [name]
        with case.call(ImportError):
            loaded = load_weights(path)
            check(all(np.isfinite(each).all() for each in loaded.tensors.values()), "not finite")
            model = SuperPointFeature2D.create(weights=path, backend="ncnn", threads=1)
            check_result(model.extract(SMALL), SMALL.shape, unit=False)


@kind
def hostile_weights(case: Case) -> None:
    """Pickles that run code, headers that promise what is not there, tensors of other shapes."""
    trap = case.folder / "trap"
    random = case.random
    for _ in range(8):
        which = int(random.integers(6))
        path = case.folder / f"hostile{case.choose(['.pth', '.pt', '.bin', '.ckpt', '.tar'])}"
        if which == 0:
            path.write_bytes(pickle.dumps(Runs(trap), protocol=int(random.integers(0, 6))))
        elif which == 1:
            torch.save({"weight": torch.zeros(2), "x": Runs(trap)}, path)
        elif which == 2:
            values: list[Any] = [3, "text", None, [], {}, {1: 2}, {"a": None}, {"state_dict": {}}]
            values += [torch.zeros(3), {"a": torch.zeros(())}, {"a": torch.zeros(2).to_sparse()}]
            torch.save(case.choose(values), path)
        else:
            path = path.with_suffix(".safetensors")
            loaded = load_weights(LITE)
            tensors = {key: torch.from_numpy(each.copy()) for key, each in loaded.tensors.items()}
            metadata: dict[str, Any] = {"score_threshold": 0.1}
            if which == 3:
                some = case.choose(sorted(tensors))
                shapes = [(), (0,), (1,), (3, 3), (64, 1, 3, 3), (65, 64, 1, 1), (2, 2, 2, 2, 2)]
                kinds = [torch.float32, torch.float16, torch.int64, torch.bool, torch.complex64]
                tensors[some] = torch.zeros(case.choose(shapes), dtype=case.choose(kinds[:4]))
            elif which == 4:
                some = case.choose(sorted(tensors))
                tensors[some] = tensors[some] * case.choose(
                    [np.nan, np.inf, 1e38, -1e38, 0.0, 1e-45]
                )
            else:
                junk = [None, -1, 2, "x", [], {}, 1e400, True, [1, 2], "1" * 4000]
                names = ["score_threshold", "score_radius", "architecture", "recipe", "precisions"]
                metadata[case.choose(names)] = case.choose(junk)
                if random.integers(2):
                    fields = [
                        "channels",
                        "depths",
                        "in_channels",
                        "descriptor_dim",
                        "norm",
                        "norm_eps",
                    ]
                    junk += [[0] * 4, [2**40] * 4, 10**9, [64, 64, 128, 128], "after_relu"]
                    metadata["architecture"] = {
                        case.choose(fields): case.choose(junk) for _ in range(3)
                    }
            write_safetensors(path, tensors, metadata)
            if random.integers(3) == 0:  # a header of another length
                data = path.read_bytes()
                length = case.choose([0, 1, 2**31, 2**63, len(data), len(data) - 8])
                path.write_bytes(struct.pack("<Q", length) + data[8:])
        case.notes[:] = [f"{path.name} {which}"]
        with case.call(ImportError):
            loaded = load_weights(path)
            backend = case.choose(["ncnn", "torch", "onnxruntime", "openvino"])
            case.note(backend, loaded.config)
            model = SuperPointFeature2D.create(weights=path, backend=backend, threads=1)
            check_result(model.extract(SMALL), SMALL.shape, unit=False)
        check(not trap.exists(), "code in a checkpoint ran")


# ---- pictures and films ----


@functools.cache
def _pictures() -> dict[str, bytes]:
    """Whole pictures of every format."""
    files = {}
    for suffix, options in (
        *((".jpg", [cv2.IMWRITE_JPEG_QUALITY, 80]), (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])),
        *((".png", []), (".webp", []), (".tif", []), (".bmp", []), (".ppm", []), (".jp2", [])),
        *((".avif", []), (".pgm", []), (".gif", []), (".hdr", []), (".pfm", [])),
    ):
        if not cv2.haveImageWriter(suffix):
            continue
        image = SMALL if suffix not in (".hdr", ".pfm") else SMALL.astype(np.float32) / 255
        done, encoded = cv2.imencode(suffix, image, options)
        if done:
            files[f"{len(files)}{suffix}"] = encoded.tobytes()
    for suffix, dtype in ((".png", np.uint16), (".tif", np.uint16), (".tif", np.float32)):
        image = (SMALL.astype(np.float64) * 200).astype(dtype)
        files[f"{len(files)}{suffix}"] = cv2.imencode(suffix, image)[1].tobytes()
    for name, kind_ in ((".jpg", "JPEG"), (".png", "PNG"), (".tif", "TIFF"), (".webp", "WEBP")):
        exif, file = Image.Exif(), io.BytesIO()
        exif[274] = 6
        Image.fromarray(SMALL).save(file, kind_, exif=exif)
        files[f"{len(files)}{name}"] = file.getvalue()
    return files


@kind
def pictures(case: Case) -> None:
    """Pictures of every format, damaged: read as pixels, or one PictureError."""
    names = sorted(_pictures())
    for _ in range(4 * EACH):
        name = case.choose(names)
        path = case.folder / name
        path.write_bytes(damaged(case, _pictures()[name], head=400))
        case.notes[:] = [name]
        grey, upright = bool(case.random.integers(2)), bool(case.random.integers(2))
        with case.call():
            picture = load_picture(path, grey=grey, upright=upright)
            pixels = picture.pixels
            check(pixels.dtype == np.uint8 and pixels.size > 0, f"{pixels.dtype} {pixels.shape}")
            check(pixels.ndim == (2 if grey else 3), f"{pixels.shape}")
            check(1 <= picture.orientation <= 8, f"orientation {picture.orientation}")


@functools.cache
def _films() -> dict[str, bytes]:
    import tempfile

    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, code in (
            ("a.avi", "MJPG"),
            ("b.mp4", "mp4v"),
            ("c.mkv", "mp4v"),
            ("d.avi", "XVID"),
        ):
            path = Path(folder) / name
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 10, (120, 80))
            for shift in range(8):
                writer.write(np.roll(SMALL, shift, axis=1))
            writer.release()
            if path.exists() and path.stat().st_size > 1000:
                files[name] = path.read_bytes()
    return files


@kind
def films(case: Case) -> None:
    """Films, damaged: frames of one size, or one VideoError."""
    names = sorted(_films())
    for _ in range(EACH // 2):
        name = case.choose(names)
        path = case.folder / name
        path.write_bytes(damaged(case, _films()[name], head=1500))
        case.notes[:] = [name]
        with case.call():
            video = Video(str(path))
            frames = 0
            for frame in video:
                check(frame.dtype == np.uint8 and frame.ndim == 3, f"{frame.dtype} {frame.shape}")
                frames += 1
                if frames == 40:
                    break
            check(isinstance(video.why_short(frames), str), "why_short")
