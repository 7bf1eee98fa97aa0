"""Bad weights files of every kind: one clear error each, and nothing in them runs."""

import io
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from tiny import CONFIG

from cv_superpoint.network.torch_network import NetworkConfig, SuperPointNet
from cv_superpoint.weights import WeightsError, load_weights, save_weights


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
    wrong_bit = value.clone()
    wrong_bit[0, 0, 0, 0] = 1e38
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
        "integer": ({**state, key: value.to(torch.int8)}, "int8"),
        "complex": ({**state, key: value.to(torch.complex64)}, "complex64"),
        "sparse": ({**state, key: value.to_sparse()}, f"{key} must be a dense"),
        "meta": ({**state, key: value.to("meta")}, f"{key} must be a dense"),
        "no storage": ({**state, key: torch.zeros(1).expand(1 << 40)}, f"{key} must be a dense"),
        "NaN": ({**state, key: spoiled}, f"{key} must be finite"),
        "infinite": (infinite, "detector_hidden.conv.bias must be finite"),
        "one bit": ({**state, key: wrong_bit}, f"{key} has a value of 1.0e+38"),
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
    """A changed value cannot be noticed without a checksum; nothing worse may happen."""
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
