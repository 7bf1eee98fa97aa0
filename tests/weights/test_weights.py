"""The weights store: bundled sets, provenance, verification."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CONFIG

from cv_superpoint.network.torch_network import NetworkConfig
from cv_superpoint.weights import WeightsError, available_weights, load_weights, save_weights
from cv_superpoint.weights import store as weights

ARCHITECTURE = {"channels": [2, 3, 4, 5], "head_channels": 6, "descriptor_dim": 7}
BUNDLED = json.loads((weights.weights_folder() / "manifest.json").read_text(encoding="utf-8"))


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
    for counts in ("channels", "depths"):
        if counts in architecture:
            architecture[counts] = tuple(architecture[counts])
    assert loaded.config == NetworkConfig(**architecture)
    assert 0 < loaded.score_threshold == entry["score_threshold"] < 1
    assert loaded.recipe
    assert loaded.commit
    assert loaded.licence == "Apache-2.0"
    assert not loaded.net.training
    with torch.no_grad():
        logits, dense = loaded.net(torch.rand(1, loaded.config.in_channels, 16, 16))
    assert logits.isfinite().all()
    assert dense.shape == (1, loaded.config.descriptor_dim, 2, 2)
    if loaded.config.descriptor_dim:
        torch.testing.assert_close(dense.norm(dim=1), torch.ones(1, 2, 2))


def test_every_bundled_file_is_listed_and_the_default_is_one_of_them():
    files = {path.name for path in weights.weights_folder().glob("*.safetensors")}
    entries = BUNDLED["weights"].values()
    named = [each for entry in entries for each in (entry, entry.get("compact")) if each]
    named += BUNDLED.get("matchers", {}).values()
    assert files == {each["file"] for each in named}
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


def test_a_set_that_another_replaces_is_that_one() -> None:
    with pytest.warns(DeprecationWarning, match="pass weights='superpoint'"):
        loaded = load_weights("superpoint-rotation")
    assert loaded.name == "superpoint"
    assert loaded.sha256 == load_weights("superpoint").sha256


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
    monkeypatch.setattr(weights, "__file__", str(package / "weights" / "store.py"))
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
    assert "'cv_superpoint.weights.store'" in modules
