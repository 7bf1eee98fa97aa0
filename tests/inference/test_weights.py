"""The weights store: provenance, verification, and what happens with every kind of bad file."""

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from cv_superpoint import weights
from cv_superpoint.network import NetworkConfig, SuperPointNet
from cv_superpoint.weights import WeightsError, available_weights, load_weights, save_weights

CONFIG = NetworkConfig(channels=(2, 3, 4, 5), head_channels=6, descriptor_dim=7)
ARCHITECTURE = {"channels": [2, 3, 4, 5], "head_channels": 6, "descriptor_dim": 7}
BUNDLED = json.loads((weights.weights_folder() / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def net():
    return SuperPointNet(CONFIG).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture
def bundle(tmp_path, monkeypatch, net):
    """A weights folder with one set, "tiny", in place of the package's."""
    root = tmp_path / "bundle"
    root.mkdir()
    sha256 = save_weights(net, root / "tiny.safetensors")
    entry = {
        "file": "tiny.safetensors", "sha256": sha256, "architecture": ARCHITECTURE,
        "score_threshold": 0.02, "recipe": "r", "commit": "c0ffee", "licence": "Apache-2.0",
    }  # fmt: skip
    write_manifest(root, {"default": "tiny", "weights": {"tiny": entry}})
    monkeypatch.setattr(weights, "weights_folder", lambda: root)
    return root


def write_manifest(root, manifest):
    (root / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def change_entry(root, **changes):
    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    manifest["weights"]["tiny"].update(changes)
    write_manifest(root, manifest)


# What this repository bundles.


@pytest.mark.parametrize("name", BUNDLED["weights"])
def test_bundled_set_is_what_the_manifest_says(name):
    entry = BUNDLED["weights"][name]
    content = (weights.weights_folder() / entry["file"]).read_bytes()
    loaded = load_weights(name)
    assert hashlib.sha256(content).hexdigest() == entry["sha256"] == loaded.sha256
    architecture = dict(entry["architecture"])
    architecture["channels"] = tuple(architecture["channels"])
    assert loaded.config == NetworkConfig(**architecture)
    assert 0 < loaded.score_threshold == entry["score_threshold"] < 1
    assert loaded.recipe
    assert loaded.commit
    assert loaded.licence == "Apache-2.0"
    assert not loaded.net.training
    with torch.no_grad():
        logits, dense = loaded.net(torch.rand(1, loaded.config.in_channels, 16, 16))
    assert logits.isfinite().all()
    torch.testing.assert_close(dense.norm(dim=1), torch.ones(1, 2, 2))


def test_every_bundled_file_is_listed_and_the_default_is_one_of_them():
    files = {path.name for path in weights.weights_folder().glob("*.safetensors")}
    assert files == {entry["file"] for entry in BUNDLED["weights"].values()}
    assert available_weights() == tuple(sorted(BUNDLED["weights"]))
    if BUNDLED["weights"]:
        assert BUNDLED["default"] in BUNDLED["weights"]
        assert load_weights().name == BUNDLED["default"]
    else:
        assert BUNDLED["default"] is None
        with pytest.raises(WeightsError, match="none is bundled here; pass the path"):
            load_weights()


# Names, paths and the manifest.


@pytest.mark.parametrize("argument", [None, "tiny"])
def test_bundled_set_carries_its_provenance(argument, bundle, net):
    loaded = load_weights(argument)
    assert (loaded.name, loaded.path) == ("tiny", bundle / "tiny.safetensors")
    assert (loaded.score_threshold, loaded.recipe, loaded.commit) == (0.02, "r", "c0ffee")
    assert (loaded.licence, loaded.layout, loaded.config) == ("Apache-2.0", "cv_superpoint", CONFIG)
    for key, value in net.state_dict().items():
        assert torch.equal(loaded.net.state_dict()[key], value)


def test_unknown_name_lists_the_bundled_ones(bundle):
    with pytest.raises(WeightsError, match=r"'superpiont' is neither .* bundled are: tiny"):
        load_weights("superpiont")


def test_a_file_beside_us_is_found_by_its_plain_name(bundle, tmp_path, monkeypatch, net):
    monkeypatch.chdir(tmp_path)
    save_weights(net, "mine.safetensors", score_threshold=0.5, recipe="mine", commit="abc")
    loaded = load_weights("mine.safetensors")
    assert (loaded.name, loaded.score_threshold, loaded.licence) == ("mine.safetensors", 0.5, None)
    assert (loaded.recipe, loaded.commit) == ("mine", "abc")


def test_threshold_has_a_fallback(tmp_path, net):
    save_weights(net, tmp_path / "x.safetensors")
    assert load_weights(tmp_path / "x.safetensors").score_threshold == 0.005


def test_saving_twice_gives_the_same_bytes(tmp_path, net):
    first = save_weights(net, tmp_path / "a.safetensors", recipe="r", commit="c")
    assert save_weights(net, tmp_path / "b.safetensors", recipe="r", commit="c") == first
    assert hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


@pytest.mark.parametrize("kwargs", [{"path": "x.pth"}, {"score_threshold": 1.5}])
def test_saving_refuses_what_could_not_be_loaded(kwargs, tmp_path, net):
    with pytest.raises(ValueError, match="must"):
        save_weights(net, **{"path": tmp_path / "x.safetensors", **kwargs})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [3, 1.5, b"superpoint", ["superpoint"]])
def test_other_types_are_refused(value):
    with pytest.raises(WeightsError, match="must be a bundled name, a path or None"):
        load_weights(value)


@pytest.mark.parametrize(
    "manifest",
    ["", "{", "[]", "{}", '{"default": "x", "weights": {}}', '{"default": null, "weights": [1]}',
     '{"default": null, "weights": {"x": 1}}', '{"default": [], "weights": {"x": {}}}'],
)  # fmt: skip
def test_damaged_manifest(manifest, bundle):
    (bundle / "manifest.json").write_text(manifest, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"manifest\.json.*reinstall"):
        available_weights()


def test_missing_manifest(bundle):
    (bundle / "manifest.json").unlink()
    with pytest.raises(WeightsError, match=r"manifest\.json.*reinstall"):
        load_weights()


@pytest.mark.parametrize("file", ["../tiny.safetensors", "/etc/passwd", None, 3])
def test_manifest_cannot_point_outside_its_folder(file, bundle):
    change_entry(bundle, file=file)
    with pytest.raises(WeightsError, match="expected the name of a file"):
        load_weights("tiny")


def test_bundled_file_is_missing(bundle):
    (bundle / "tiny.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"tiny\.safetensors: no such weights file"):
        load_weights("tiny")


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_any_flipped_bit_of_a_bundled_file_is_noticed(data, folder, net):
    sha256 = save_weights(net, folder / "tiny.safetensors")
    content = bytearray((folder / "tiny.safetensors").read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "tiny.safetensors").write_bytes(content)
    entry = {"file": "tiny.safetensors", "sha256": sha256, "architecture": ARCHITECTURE}
    write_manifest(folder, {"default": "tiny", "weights": {"tiny": entry}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "weights_folder", lambda: folder)
        with pytest.raises(WeightsError, match=f"expected sha256 {sha256}, got"):
            load_weights("tiny")


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({**ARCHITECTURE, "head_channels": 8}, "do not belong together"),
        ({**ARCHITECTURE, "norm": "before_relu"}, "do not belong together"),
        ({**ARCHITECTURE, "output_norm": True}, "do not belong together"),
        ({**ARCHITECTURE, "colour": "red"}, "fields of NetworkConfig"),
        ({**ARCHITECTURE, "channels": [1, 2]}, "fields of NetworkConfig"),
        ({**ARCHITECTURE, "norm_eps": float("nan")}, "fields of NetworkConfig"),
        ({}, "fields of NetworkConfig"),
        ("vgg", "fields of NetworkConfig"),
        (None, "fields of NetworkConfig"),
    ],
)
def test_architecture_must_agree_with_the_file(architecture, message, bundle):
    change_entry(bundle, architecture=architecture)
    with pytest.raises(WeightsError, match=message):
        load_weights("tiny")


@pytest.mark.parametrize("threshold", [-0.1, 2, "0.5", float("nan"), []])
def test_threshold_must_be_a_probability(threshold, bundle):
    change_entry(bundle, score_threshold=threshold)
    with pytest.raises(WeightsError, match="score_threshold must be in"):
        load_weights("tiny")


def test_weights_folder_is_in_the_wheel_or_in_the_checkout(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "cv_superpoint"
    package.mkdir(parents=True)
    monkeypatch.setattr(weights, "__file__", str(package / "weights.py"))
    assert weights.weights_folder() == package.parent / "weights"
    (package / "_weights").mkdir()
    assert weights.weights_folder() == package / "_weights"


def test_importing_the_store_does_not_import_torch():
    code = (
        "import sys, cv_superpoint.weights as w; w.available_weights(); print(sorted(sys.modules))"
    )
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "'torch'" not in modules
    assert "'cv_superpoint.weights'" in modules


# Bad files: one clear error each.


def check_refused(path, *words):
    with pytest.raises(WeightsError) as caught:
        load_weights(path)
    message = str(caught.value)
    assert str(path) in message, "the error names the file"
    for word in words:
        assert word in message


def test_missing_file(tmp_path):
    check_refused(tmp_path / "x.pth", "no such weights file")
    check_refused(str(tmp_path / "x"), "no such weights file")


def test_directory(tmp_path):
    check_refused(tmp_path, "got a directory")
    (tmp_path / "model.safetensors").touch()
    check_refused(tmp_path, f"did you mean {tmp_path / 'model.safetensors'}?")


@pytest.mark.parametrize("ending", [".onnx", ".txt", "", ".npz"])
def test_unsupported_ending(ending, tmp_path):
    path = tmp_path / f"weights{ending}"
    path.write_bytes(b"content")
    check_refused(path, "expected a file ending in .safetensors, .pth")


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".bin", ".tar"])
def test_empty_file(ending, tmp_path):
    path = tmp_path / f"weights{ending}"
    path.touch()
    check_refused(path, "got an empty file")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads anything")
def test_unreadable_file(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(b"x")
    path.chmod(0)
    check_refused(path, "permissions")


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar"])
@pytest.mark.parametrize("content", [b"\0", b"hello world" * 9, b"\x80\x02.", b"PK\x03\x04", b"{}"])
def test_garbage(ending, content, tmp_path):
    path = tmp_path / f"weights{ending}"
    path.write_bytes(content)
    check_refused(path, "expected a")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("content", [[1, 2], "text", 3.5, torch.zeros(3), None, {}, {"a": 1}])
def test_pickles_without_a_network(content, legacy, tmp_path):
    path = tmp_path / "x.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    check_refused(path, "expected a", "state_dict")


def test_a_container_that_holds_itself(tmp_path):
    content = {}
    content["model"] = content
    torch.save(content, tmp_path / "x.pth")
    check_refused(tmp_path / "x.pth", "expected a SuperPoint checkpoint")


def broken_states(state):
    key = "encoder.3.conv.weight"
    value = state[key]
    spoiled = value.clone()
    spoiled[0, 0, 0, 0] = float("nan")
    infinite = {**state, "detector_hidden.conv.bias": torch.full((6,), 1e300, dtype=torch.float64)}
    without = {k: v for k, v in state.items() if k != key}
    odd = state["encoder.0.conv.weight"].repeat(1, 2, 1, 1)
    return {
        "missing": (without, f"missing {key}"),
        "unexpected": ({**state, "extra.weight": value.clone()}, "unexpected extra.weight"),
        "not a tensor": (
            {**state, key: 3},
            f"{key} must be a dense floating-point tensor, got int",
        ),
        "integer": ({**state, key: value.to(torch.int8)}, "got torch.int8"),
        "complex": ({**state, key: value.to(torch.complex64)}, "got torch.complex64"),
        "sparse": ({**state, key: value.to_sparse()}, f"{key} must be a dense"),
        "meta": ({**state, key: value.to("meta")}, f"{key} must be a dense"),
        "no storage": ({**state, key: torch.zeros(1).expand(1 << 40)}, f"{key} must be a dense"),
        "NaN": ({**state, key: spoiled}, f"{key} must be finite"),
        "infinite": (infinite, "detector_hidden.conv.bias must be finite"),
        "transposed": ({**state, key: value[:, :2]}, f"{key} must have shape (3, 3, 3, 3)"),
        "flat": ({**state, key: value.flatten()}, f"{key} must be (out, in, height, width)"),
        "no channels": ({**state, key: value[:0]}, f"{key} must be (out, in, height, width)"),
        "two-channel image": (
            {**state, "encoder.0.conv.weight": odd},
            "in_channels must be 1 or 3",
        ),
        "other cell": (
            {**state, "detector_output.conv.bias": torch.zeros(64)},
            "detector_output.conv.bias must have shape (65,)",
        ),
    }


CASES = list(broken_states(SuperPointNet(CONFIG).state_dict()))


@pytest.mark.parametrize("case", CASES)
def test_wrong_tensors_in_a_checkpoint(case, tmp_path, net):
    state, message = broken_states(net.state_dict())[case]
    torch.save(state, tmp_path / "x.pth")
    check_refused(tmp_path / "x.pth", message)


@pytest.mark.parametrize("case", ["missing", "unexpected", "integer", "NaN", "flat", "other cell"])
def test_wrong_tensors_in_safetensors(case, tmp_path, net):
    state, message = broken_states(net.state_dict())[case]
    save_file({k: v.detach().contiguous() for k, v in state.items()}, tmp_path / "x.safetensors")
    check_refused(tmp_path / "x.safetensors", message)


@pytest.mark.parametrize(
    ("variance", "message"), [(-1.0, "must not be negative"), (0.0, "extreme statistics")]
)
def test_impossible_normalisation(variance, message, tmp_path):
    state = SuperPointNet(NetworkConfig(channels=(2, 2, 2, 2), norm="before_relu")).state_dict()
    state["encoder.0.norm.running_var"].fill_(variance)
    state["encoder.0.norm.weight"].fill_(1e38)
    torch.save(state, tmp_path / "x.pth")
    check_refused(tmp_path / "x.pth", message)


@pytest.mark.parametrize(
    "metadata", ["[]", "{", "3", '{"architecture": 3}', '{"score_threshold": 7}']
)
def test_damaged_metadata(metadata, tmp_path, net):
    (tmp_path / "x.safetensors").write_bytes(save(net.state_dict(), {"cv_superpoint": metadata}))
    check_refused(tmp_path / "x.safetensors")


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_truncated_file_never_loads(data, folder, net):
    path = folder / "cut.safetensors"
    save_weights(net, path)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    check_refused(path)
    path.write_bytes(content + data.draw(st.binary(min_size=1, max_size=9)))
    check_refused(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_checkpoint_never_loads(zipped, folder, net):
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer, _use_new_zipfile_serialization=zipped)
    content = buffer.getvalue()
    for length in range(1, len(content), len(content) // 40):
        (folder / "cut.pth").write_bytes(content[:length])
        check_refused(folder / "cut.pth")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_file_gives_the_one_error_or_a_whole_network(kind, data, folder, net):
    """Without a checksum a changed value cannot be noticed; nothing worse may happen."""
    buffer = io.BytesIO()
    if kind == "safetensors":
        buffer.write(save(net.state_dict()))
    else:
        torch.save(net.state_dict(), buffer, _use_new_zipfile_serialization=kind == "zip")
    content = bytearray(buffer.getvalue())
    # Mostly the header and the directory: flips of weights are dull.
    near_ends = st.integers(0, 2000) | st.integers(len(content) - 2000, len(content) - 1)
    content[data.draw(near_ends)] ^= data.draw(st.integers(1, 255))
    path = folder / ("x.safetensors" if kind == "safetensors" else "x.pth")
    path.write_bytes(content)
    try:
        loaded = load_weights(path)
    except WeightsError:
        return
    assert all(parameter.isfinite().all() for parameter in loaded.net.parameters())


# Malicious files: nothing executes.


class Payload:
    """Unpickling this creates the marker file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def raw(payload, path, state):
    path.write_bytes(pickle.dumps(payload))


def zipped(payload, path, state):
    torch.save(payload, path)


def legacy(payload, path, state):
    torch.save(payload, path, _use_new_zipfile_serialization=False)


def beside_tensors(payload, path, state):
    torch.save({"state_dict": state, "optimizer": payload}, path)


def among_tensors(payload, path, state):
    torch.save({**state, "encoder.0.conv.weight": payload}, path)


@pytest.mark.parametrize("ending", [".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".safetensors"])
@pytest.mark.parametrize("write", [raw, zipped, legacy, beside_tensors, among_tensors])
def test_a_malicious_pickle_does_not_run(write, ending, tmp_path, net):
    marker = tmp_path / "executed"
    path = tmp_path / f"weights{ending}"
    write(Payload(marker), path, net.state_dict())
    check_refused(path, "expected a")
    assert not marker.exists()


def test_the_payload_would_have_run(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()
    (tmp_path / "executed").unlink()
    torch.save(Payload(tmp_path / "executed"), tmp_path / "x.pth")
    torch.load(tmp_path / "x.pth", weights_only=False)
    assert (tmp_path / "executed").exists()


def test_a_script_archive_does_not_run(tmp_path, net):
    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.zeros(1)), path)
        check_refused(path, "expected a PyTorch file")


def test_a_pickled_module_is_refused_with_the_remedy(tmp_path, net):
    torch.save(net, tmp_path / "whole.pth")
    check_refused(tmp_path / "whole.pth", "save the network's state_dict")


def test_old_torch_does_not_read_pickles(tmp_path, monkeypatch, net):
    torch.save(net.state_dict(), tmp_path / "x.pth")
    save_weights(net, tmp_path / "x.safetensors")
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.5.1"))
    check_refused(tmp_path / "x.pth", "install torch>=2.6, or convert")
    load_weights(tmp_path / "x.safetensors")
