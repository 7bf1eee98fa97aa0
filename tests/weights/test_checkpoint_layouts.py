"""Other releases' checkpoints give the outputs that those releases compute.

Each reference below is written from the layout's definition, on the checkpoint's own names, and
shares nothing with the package.
"""

import warnings

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from cv_superpoint.decoding.tensors import logits_to_heatmap
from cv_superpoint.network.torch_network import NetworkConfig, SuperPointNet
from cv_superpoint.weights import WeightsError, load_weights, save_weights

CHANNELS = (3, 4, 5, 6)
HEAD, DIM = 7, 8
STAGES = list(zip((1, *CHANNELS), CHANNELS, strict=False))


def random_conv(state, generator, name, c_in, c_out, kernel=3):
    shape = (c_out, c_in, kernel, kernel)
    scale = (2 / (c_in * kernel * kernel)) ** 0.5
    state[f"{name}.weight"] = torch.randn(shape, generator=generator) * scale
    state[f"{name}.bias"] = torch.randn(c_out, generator=generator) * 0.1


def random_norm(state, generator, name, channels):
    # Scales of both signs, and variances so small that the epsilon matters.
    state[f"{name}.weight"] = torch.randn(channels, generator=generator) * 0.4
    state[f"{name}.bias"] = torch.randn(channels, generator=generator)
    state[f"{name}.running_mean"] = torch.randn(channels, generator=generator) * 0.3
    state[f"{name}.running_var"] = torch.rand(channels, generator=generator) * 0.2 + 0.01
    state[f"{name}.num_batches_tracked"] = torch.tensor(12)


def conv(state, name, x):
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def norm(state, name, x, eps):
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)


def magic_leap_state(generator):
    state = {}
    for stage, (c_in, c_out) in enumerate(STAGES, 1):
        random_conv(state, generator, f"conv{stage}a", c_in, c_out)
        random_conv(state, generator, f"conv{stage}b", c_out, c_out)
    for head, c_out in (("P", 65), ("D", DIM)):
        random_conv(state, generator, f"conv{head}a", CHANNELS[-1], HEAD)
        random_conv(state, generator, f"conv{head}b", HEAD, c_out, kernel=1)
    return state


def magic_leap_reference(state, x):
    for stage in (1, 2, 3, 4):
        x = F.relu(conv(state, f"conv{stage}a", x))
        x = F.relu(conv(state, f"conv{stage}b", x))
        if stage < 4:
            x = F.max_pool2d(x, 2)
    logits = conv(state, "convPb", F.relu(conv(state, "convPa", x)))
    dense = conv(state, "convDb", F.relu(conv(state, "convDa", x)))
    return logits, F.normalize(dense, dim=1)


def rpautrat_state(generator):
    state = {}

    def block(name, c_in, c_out, kernel=3):
        random_conv(state, generator, f"{name}.conv", c_in, c_out, kernel)
        random_norm(state, generator, f"{name}.bn", c_out)

    for stage, (c_in, c_out) in enumerate(STAGES):
        block(f"backbone.{stage}.0", c_in, c_out)
        block(f"backbone.{stage}.1", c_out, c_out)
    for head, c_out in (("detector", 65), ("descriptor", DIM)):
        block(f"{head}.0", CHANNELS[-1], HEAD)
        block(f"{head}.1", HEAD, c_out, kernel=1)
    return state


def rpautrat_reference(state, x):
    def block(name, x):
        return norm(state, f"{name}.bn", F.relu(conv(state, f"{name}.conv", x)), 1e-3)

    def output(name, x):
        return norm(state, f"{name}.bn", conv(state, f"{name}.conv", x), 1e-3)

    for stage in range(4):
        x = block(f"backbone.{stage}.1", block(f"backbone.{stage}.0", x))
        x = F.max_pool2d(x, 2) if stage < 3 else x
    logits = output("detector.1", block("detector.0", x))
    return logits, F.normalize(output("descriptor.1", block("descriptor.0", x)), dim=1)


GAUSS2_STAGES = ("inc.conv", "down1.mpconv.1", "down2.mpconv.1", "down3.mpconv.1")


def gauss2_state(generator):
    state = {}
    for name, (c_in, c_out) in zip(GAUSS2_STAGES, STAGES, strict=True):
        random_conv(state, generator, f"{name}.conv.0", c_in, c_out)
        random_norm(state, generator, f"{name}.conv.1", c_out)
        random_conv(state, generator, f"{name}.conv.3", c_out, c_out)
        random_norm(state, generator, f"{name}.conv.4", c_out)
    for head, c_out in (("P", 65), ("D", DIM)):
        random_conv(state, generator, f"conv{head}a", CHANNELS[-1], HEAD)
        random_norm(state, generator, f"bn{head}a", HEAD)
        random_conv(state, generator, f"conv{head}b", HEAD, c_out, kernel=1)
        random_norm(state, generator, f"bn{head}b", c_out)
    return state


def gauss2_reference(state, x):
    for name in GAUSS2_STAGES:
        x = x if name == "inc.conv" else F.max_pool2d(x, 2)
        for index in (0, 3):
            x = conv(state, f"{name}.conv.{index}", x)
            x = F.relu(norm(state, f"{name}.conv.{index + 1}", x, 1e-5))
    outputs = []
    for head in "PD":
        hidden = F.relu(norm(state, f"bn{head}a", conv(state, f"conv{head}a", x), 1e-5))
        outputs.append(norm(state, f"bn{head}b", conv(state, f"conv{head}b", hidden), 1e-5))
    return outputs[0], F.normalize(outputs[1], dim=1)


LAYOUTS = {
    "Magic Leap": (magic_leap_state, magic_leap_reference),
    "rpautrat/SuperPoint": (rpautrat_state, rpautrat_reference),
    "eric-yyjau/pytorch-superpoint (SuperPointNet_gauss2)": (gauss2_state, gauss2_reference),
}


@pytest.fixture
def image():
    return torch.rand(2, 1, 24, 32, generator=torch.Generator().manual_seed(1))


def assert_same_outputs(net, image, logits, dense):
    with torch.no_grad():
        got_logits, got_dense = net(image)
    spread = float(logits.std())
    assert 0.1 < spread < 1e3, "the reference must be neither trivial nor absurd"
    torch.testing.assert_close(got_logits, logits, rtol=1e-4, atol=1e-4 * spread)
    torch.testing.assert_close(got_dense, dense, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LAYOUTS)
def test_third_party_checkpoint_computes_what_its_release_computes(name, seed, tmp_path, image):
    make_state, reference = LAYOUTS[name]
    state = make_state(torch.Generator().manual_seed(seed))
    torch.save(state, tmp_path / "checkpoint.pth")
    loaded = load_weights(tmp_path / "checkpoint.pth")
    assert loaded.layout == name
    assert_same_outputs(loaded.net, image, *reference(state, image))


def wrap_gauss2(state):
    return {"n_iter": 3, "model_state_dict": state, "optimizer_state_dict": {}, "loss": 0.1}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(
    ("file", "wrap"),
    [
        ("x.pth.tar", wrap_gauss2),
        ("x.pt", lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}}),
        ("x.bin", lambda state: {f"superpoint.{k}": v for k, v in state.items()}),
        ("x.ckpt", lambda state: {"model": {f"module.net.{k}": v for k, v in state.items()}}),
        ("x.safetensors", lambda state: {f"module.{k}": v for k, v in state.items()}),
        ("x.pth", lambda state: {k: torch.nn.Parameter(v.float()) for k, v in state.items()}),
        ("x.pth", lambda state: {k: v.double() for k, v in state.items()}),
    ],
)
def test_wrappers_prefixes_and_types_change_nothing(name, file, wrap, tmp_path, image):
    make_state, reference = LAYOUTS[name]
    state = make_state(torch.Generator().manual_seed(7))
    path = tmp_path / file
    if path.suffix == ".safetensors":
        save_file(wrap(state), path)
    else:
        torch.save(wrap(state), path)
    assert_same_outputs(load_weights(str(path)).net, image, *reference(state, image))


@pytest.mark.parametrize("seed", range(2))
def test_hugging_face_model(seed, tmp_path, image):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever its imports warn of is not ours
        transformers = pytest.importorskip("transformers")
        config = transformers.SuperPointConfig(
            encoder_hidden_sizes=list(CHANNELS), decoder_hidden_size=HEAD,
            descriptor_decoder_dim=DIM, keypoint_threshold=-1.0, nms_radius=0,
            border_removal_distance=0,
        )  # fmt: skip
        model = transformers.SuperPointForKeypointDetection(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5)
        features = model.encoder(image).last_hidden_state
        detector, descriptor = model.keypoint_decoder, model.descriptor_decoder
        logits = detector.conv_score_b(F.relu(detector.conv_score_a(features)))
        dense = descriptor.conv_descriptor_b(F.relu(descriptor.conv_descriptor_a(features)))
        dense = F.normalize(dense, dim=1)
        points, scores = detector(features[:1])  # every pixel: no threshold, border or suppression
    model.save_pretrained(tmp_path)
    torch.save({f"superpoint.{k}": v for k, v in model.state_dict().items()}, tmp_path / "m.bin")
    for file in ("model.safetensors", "m.bin"):
        loaded = load_weights(tmp_path / file)
        assert loaded.layout == "Hugging Face"
        assert_same_outputs(loaded.net, image, logits, dense)
        with torch.no_grad():
            heatmap = logits_to_heatmap(loaded.net(image)[0])[0]
        assert len(points) == heatmap.numel()
        columns, rows = points.long().unbind(1)
        torch.testing.assert_close(heatmap[rows, columns], scores, rtol=1e-3, atol=1e-6)


def own_net(seed=0, **changes):
    fields = {"channels": CHANNELS, "head_channels": HEAD, "descriptor_dim": DIM, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SuperPointNet(NetworkConfig(**fields))
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(module.weight, std=0.5)
                torch.nn.init.normal_(module.bias)
                torch.nn.init.normal_(module.running_mean, std=0.1)
                torch.nn.init.uniform_(module.running_var, 0.01, 0.5)
            elif isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
    return net.eval()


OWN_VARIANTS = [
    {},
    {"in_channels": 3},
    {"norm": "before_relu"},
    {"norm": "before_relu", "output_norm": True},
]


@pytest.mark.parametrize("changes", OWN_VARIANTS)
def test_own_state_dict_is_recognised_and_folded(changes, tmp_path, image):
    net = own_net(**changes)
    torch.save({"model": net.state_dict(), "step": 5}, tmp_path / "last.pt")
    loaded = load_weights(tmp_path / "last.pt")
    assert loaded.layout == "cv_superpoint"
    assert loaded.config.norm == "none"
    assert loaded.config.in_channels == net.config.in_channels
    image = image.expand(-1, net.config.in_channels, -1, -1)
    assert_same_outputs(loaded.net, image, *(out.detach() for out in net(image)))


@pytest.mark.parametrize(
    "changes",
    [*OWN_VARIANTS, {"norm": "after_relu"}, {"norm": "after_relu", "output_norm": True},
     {"norm": "before_relu", "norm_eps": 0.01}, {"norm": "after_relu", "norm_eps": 0.01}],
)  # fmt: skip
def test_saved_network_comes_back(changes, tmp_path, image):
    net = own_net(**changes)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    save_weights(net, tmp_path / "mine.safetensors")
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), "saving must leave the network alone"
    loaded = load_weights(tmp_path / "mine.safetensors")
    image = image.expand(-1, net.config.in_channels, -1, -1)
    assert_same_outputs(loaded.net, image, *(out.detach() for out in net(image)))


def test_an_imported_checkpoint_can_be_saved_as_ours(tmp_path, image):
    state = rpautrat_state(torch.Generator().manual_seed(0))
    torch.save(state, tmp_path / "theirs.pth")
    imported = load_weights(tmp_path / "theirs.pth")
    save_weights(imported.net, tmp_path / "ours.safetensors")
    again = load_weights(tmp_path / "ours.safetensors")
    assert again.config == imported.config
    assert again.config.norm_eps == 1e-3
    assert_same_outputs(again.net, image, *rpautrat_reference(state, image))


def test_the_older_network_of_eric_yyjau_is_refused(tmp_path):
    # SuperPointNet_gauss has the same layers and a decoder, but another order in its heads.
    state = gauss2_state(torch.Generator().manual_seed(0))
    for stage in (1, 2, 3):
        random_conv(state, None, f"up{stage}.conv.conv.0", 4, 4)
    random_conv(state, None, "outc.conv", 4, 1, kernel=1)
    torch.save({"model_state_dict": state}, tmp_path / "old.pth.tar")
    with pytest.raises(WeightsError, match=r"unexpected outc\.conv\.bias"):
        load_weights(tmp_path / "old.pth.tar")


def test_thresholds_are_those_of_the_releases(tmp_path):
    for (make_state, _), expected in zip(LAYOUTS.values(), (0.015, 0.005, 0.015), strict=True):
        torch.save(make_state(torch.Generator().manual_seed(0)), tmp_path / "x.pth")
        assert load_weights(tmp_path / "x.pth").score_threshold == expected


@pytest.mark.parametrize("changes", [{}, {"norm": "before_relu"}])
def test_loading_leaves_the_random_state_alone(changes, tmp_path):
    net = own_net(**changes)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    before = torch.random.get_rng_state()
    load_weights(tmp_path / "net.pt")
    save_weights(net, tmp_path / "net.safetensors")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_full_size_network_in_every_wrapper_key(tmp_path):
    net = SuperPointNet().eval()
    for wrapper in ("state_dict", "model_state_dict", "model", "net"):
        torch.save({wrapper: net.state_dict()}, tmp_path / "net.pth")
        loaded = load_weights(tmp_path / "net.pth")
        assert loaded.config == NetworkConfig()
        for key, value in net.state_dict().items():
            assert torch.equal(loaded.net.state_dict()[key], value)
