"""LoRA files, quantised weights and text encoders on the CPU: what they change, and what is refused."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from quantised_files import LAYER, matrices, quantised, write_gguf
from safetensors.torch import load_file, save_file
from torch import Tensor

from imax_dist.errors import BadConfig, BadValue, MissingInput
from imax_dist.models.load import Loading, describe_model, load
from imax_dist.models.lora.merge import parse_lora
from imax_dist.models.tiny import make_tiny
from imax_dist.pipeline.ranks import ParallelSettings
from imax_dist.pipeline.renderer import render
from imax_dist.pipeline.request import Request

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("flux-schnell", tmp_path_factory.mktemp("lora") / "flux-schnell")


def loaded(folder: Path, *loras: str, text: bool = False) -> Any:
    return load(str(folder), Loading(CPU, CPU if text else None, "float32", loras))


def query(model: Any) -> Tensor:
    weight: Tensor = model.transformer.single_transformer_blocks[0].attn.to_q.weight
    return weight.detach()


def test_several_loras_add_up_in_the_weights_themselves(flux: Path, lora: Path) -> None:
    """W + (0.5 + 1) B A, in a plain linear layer: nothing is left to compute at a step."""
    plain, merged = loaded(flux), loaded(flux, f"{lora}:0.5", str(lora))
    down, up = matrices().values()
    assert (query(merged) - query(plain) - 1.5 * up @ down).abs().max() < 1e-6
    assert type(merged.transformer.single_transformer_blocks[0].attn.to_q) is torch.nn.Linear


def test_a_lora_is_part_of_picture_fingerprint_and_recipe(flux: Path, lora: Path) -> None:
    def rendered(*loras: str) -> Any:
        fields = dict(size="80x64", steps=1, native_steps=1, dtype="float32")
        return render(Request("a red sun", model=str(flux), lora=loras, **fields))

    plain, half, whole = rendered(), rendered(f"{lora}:0.5"), rendered(str(lora))
    assert (plain.latents - half.latents).abs().max() > 1e-4
    assert len({own.plan.fingerprint for own in (plain, half, whole)}) == 3
    assert plain.recipe["model"]["loras"] == []
    (entry,) = half.recipe["model"]["loras"]
    assert (entry["file"], entry["weight"], len(entry["sha256"])) == ("style.safetensors", 0.5, 64)
    assert half.recipe["request"]["lora"] == [f"{lora}:0.5"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/style.safetensors", ("a/style.safetensors", 1.0)),
        ("style.safetensors:0.8", ("style.safetensors", 0.8)),
        ("style.safetensors:-1", ("style.safetensors", -1.0)),
        ("C:/loras/style.safetensors", ("C:/loras/style.safetensors", 1.0)),
    ],
)
def test_a_path_and_a_weight_are_told_apart(text: str, expected: tuple[str, float]) -> None:
    assert parse_lora(text) == expected


@pytest.mark.parametrize(
    "text", ["style.safetensors:much", ":0.5", "style.safetensors:nan", "style.safetensors:inf"]
)
def test_a_weight_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match=r"is not PATH\[:WEIGHT\]"):
        parse_lora(text)


def test_a_lora_that_is_not_there_or_is_none_is_refused(flux: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"lora nowhere.safetensors does not exist"):
        describe_model(str(flux), loras=["nowhere.safetensors:0.5"])
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, other)
    with pytest.raises(BadValue, match=r"holds no LoRA: none of its 1 tensors"):
        describe_model(str(flux), loras=[str(other)])
    other.write_bytes(b"not safetensors")
    with pytest.raises(BadValue, match=r"is not a .safetensors file"):
        describe_model(str(flux), loras=[str(other)])
    with pytest.raises(MissingInput, match=r"holds 0 .safetensors files; name one of them"):
        describe_model(str(flux), loras=[str(flux)])


def test_a_lora_of_another_network_is_refused_by_name(flux: Path, tmp_path: Path) -> None:
    wide, foreign = tmp_path / "wide.safetensors", tmp_path / "foreign.safetensors"
    save_file(matrices(width=48), wide)
    save_file({key.replace(LAYER, "transformer.no_such_layer"): x for key, x in matrices().items()}, foreign)
    for file in (wide, foreign):
        with pytest.raises(BadValue, match=rf"lora .*{file.name} does not fit model .*flux-schnell"):
            loaded(flux, str(file))


def layers_of(network: Any, count: int | None = None) -> list[str]:
    return [name for name, module in network.named_modules() if hasattr(module, "in_features")][:count]


def written(
    file: Path, network: Any, layers: list[str], *, spelt: str = "transformer.{}", rank: int = 2
) -> Path:
    """A LoRA on ``layers`` of the network, in diffusers' suffixes."""
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name in layers:
        module = network.get_submodule(name)
        for side, shape in (("A", (rank, module.in_features)), ("B", (module.out_features, rank))):
            tensors[f"{spelt.format(name)}.lora_{side}.weight"] = (
                torch.randn(shape, generator=generator) * 0.1
            )
    save_file(tensors, file)
    return file


def changed(before: Any, after: Any) -> set[str]:
    old = dict(before.transformer.named_parameters())
    new = dict(after.transformer.named_parameters())
    assert old.keys() == new.keys()
    return {name.removesuffix(".weight") for name, x in new.items() if not torch.equal(x, old[name])}


@pytest.mark.parametrize("spelt", ["transformer.{}", "base_model.model.{}", "diffusion_model.{}", "{}"])
def test_every_layer_of_a_lora_is_merged_and_counted_whoever_wrote_its_names(
    flux: Path, tmp_path: Path, spelt: str
) -> None:
    plain = loaded(flux)
    layers = layers_of(plain.transformer)
    merged = loaded(flux, str(written(tmp_path / "all.safetensors", plain.transformer, layers, spelt=spelt)))
    assert changed(plain, merged) == set(layers)
    assert merged.notes[0].startswith(f"lora all.safetensors x 1: {len(layers)} of {len(layers)} layers (")


def test_kohyas_names_go_through_diffusers_converter_with_their_alpha(flux: Path, tmp_path: Path) -> None:
    """Queries, keys, values: one layer of kohya's, three of the network's; alpha 1 at rank 2 is half."""
    down, up = torch.randn(2, 32), torch.randn(96, 2)
    layer, file = "lora_unet_double_blocks_0_img_attn_qkv", tmp_path / "kohya.safetensors"
    tensors = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(1.0)}
    save_file({f"{layer}.{name}": x for name, x in tensors.items()}, file)
    plain, merged = loaded(flux), loaded(flux, str(file))
    assert merged.notes == ("lora kohya.safetensors x 1: 1 of 1 layer (kohya)",)
    for name, part in zip("qkv", up.chunk(3), strict=True):
        before, after = (
            getattr(model.transformer.transformer_blocks[0].attn, f"to_{name}").weight
            for model in (plain, merged)
        )
        assert (after - before - 0.5 * part @ down).abs().max() < 1e-5


def test_a_misspelt_layer_of_kohyas_is_named(flux: Path, tmp_path: Path) -> None:
    tensors = {}
    for layer in ("lora_unet_double_blocks_0_img_attn_proj", "lora_unet_double_blocks_0_img_atn_proj"):
        tensors |= {
            f"{layer}.lora_down.weight": torch.ones(2, 32),
            f"{layer}.lora_up.weight": torch.ones(32, 2),
        }
    save_file(tensors, tmp_path / "kohya.safetensors")
    with pytest.raises(
        BadValue, match=r"1 of 2 layers \(kohya\) fit; lora_unet_double_blocks_0_img_atn_proj is"
    ):
        loaded(flux, str(tmp_path / "kohya.safetensors"))


@pytest.mark.parametrize(
    ("layers", "names", "form"),
    [
        (
            [f"lora_unet_down_blocks_1_attentions_{n}_transformer_blocks_0_attn1_to_q" for n in (0, 1)],
            ("lora_down", "lora_up"),
            "kohya",
        ),
        (
            ["base_model.model.double_blocks.0.img_attn.qkv", "base_model.model.single_blocks.0.linear1"],
            ("lora_A", "lora_B"),
            "PEFT",
        ),
    ],
    ids=["SDXL's, kohya", "fal's"],
)
def test_a_lora_whose_names_are_none_of_the_networks_is_counted(
    flux: Path, tmp_path: Path, layers: list[str], names: tuple[str, str], form: str
) -> None:
    shapes = (2, 32), (32, 2)
    tensors = {
        f"{layer}.{name}.weight": torch.ones(shape)
        for layer in layers
        for name, shape in zip(names, shapes, strict=True)
    }
    save_file(tensors, tmp_path / "foreign.safetensors")
    message = rf"does not fit model .*: 0 of 2 layers \({form}\) fit; {layers[0]} is not a layer"
    with pytest.raises(BadValue, match=message):
        loaded(flux, str(tmp_path / "foreign.safetensors"))


def test_half_a_lora_is_refused_unless_a_part_is_asked_for(flux: Path, tmp_path: Path) -> None:
    plain = loaded(flux)
    good = layers_of(plain.transformer, 4)
    file = written(tmp_path / "half.safetensors", plain.transformer, good)
    tensors = load_file(file)
    for name in good[:2]:
        for side in "AB":
            key = f"transformer.{name}.lora_{side}.weight"
            tensors[key.replace(name, f"{name}_misspelt")] = tensors.pop(key)
    save_file(tensors, file)
    with pytest.raises(
        BadValue, match=r"2 of 4 layers \(diffusers\) fit; .*_misspelt is not a layer.*--lora-partial"
    ):
        loaded(flux, str(file))
    merged = load(str(flux), Loading(CPU, None, "float32", (str(file),), lora_partial=True))
    assert changed(plain, merged) == set(good[2:])
    assert merged.notes == ("lora half.safetensors x 1: 2 of 4 layers (diffusers)",)


@pytest.mark.parametrize("width", [10, 48])
def test_a_layer_of_another_width_is_refused_with_both_shapes(flux: Path, tmp_path: Path, width: int) -> None:
    file = tmp_path / "odd.safetensors"
    save_file(matrices(width=width), file)
    with pytest.raises(
        BadValue, match=rf"\(32, 2\) x \(2, {width}\), but the layer takes 32 numbers and makes 32"
    ):
        loaded(flux, str(file))


def test_the_alpha_of_adapter_settings_counts(flux: Path, tmp_path: Path) -> None:
    """diffusers keeps it in the file's header, PEFT in adapter_config.json beside the file."""
    down, up = matrices().values()
    header = tmp_path / "header.safetensors"
    save_file(
        matrices(), header, {"lora_adapter_metadata": '{"transformer.r": 2, "transformer.lora_alpha": 6}'}
    )
    peft = tmp_path / "adapter_model.safetensors"
    save_file({key.replace("transformer", "base_model.model", 1): x for key, x in matrices().items()}, peft)
    (tmp_path / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 6, "alpha_pattern": {}}')
    plain = query(loaded(flux))
    for file in (header, peft):
        assert (query(loaded(flux, str(file))) - plain - 3.0 * up @ down).abs().max() < 1e-5


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[1]", b"[" * 100_000])
def test_adapter_settings_that_are_none_are_one_sentence(flux: Path, tmp_path: Path, content: bytes) -> None:
    save_file(matrices(), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes(content)
    with pytest.raises(BadValue, match=r"does not fit model .*: its adapter settings are not readable: "):
        loaded(flux, str(tmp_path / "adapter_model.safetensors"))


@pytest.mark.parametrize(
    ("alpha", "sentence"),
    [
        ('"x"', r"its adapter settings are not readable: could not convert string to float: 'x'"),
        ("0", r"the alpha in its adapter settings is 0, so that the layer would change nothing"),
        ("NaN", r"the alpha in its adapter settings is nan"),
    ],
)
def test_an_alpha_of_adapter_settings_that_is_none_is_refused(
    flux: Path, tmp_path: Path, alpha: str, sentence: str
) -> None:
    file = tmp_path / "header.safetensors"
    save_file(matrices(), file, {"lora_adapter_metadata": f'{{"r": 2, "lora_alpha": {alpha}}}'})
    with pytest.raises(BadValue, match=sentence):
        loaded(flux, str(file))


def test_an_alpha_stored_as_a_whole_number_is_that_number(flux: Path, tmp_path: Path) -> None:
    down, up = matrices().values()
    save_file(first("alpha", torch.tensor(6)), tmp_path / "whole.safetensors")
    added = query(loaded(flux, str(tmp_path / "whole.safetensors"))) - query(loaded(flux))
    assert (added - 3.0 * up @ down).abs().max() < 1e-5


def test_an_alpha_larger_than_half_precision_holds_is_multiplied_in(flux: Path, tmp_path: Path) -> None:
    down, up = matrices().values()
    half = {f"{LAYER}.lora_A.weight": (1e-3 * down).half(), f"{LAYER}.lora_B.weight": (1e3 * up).half()}
    save_file({**half, f"{LAYER}.alpha": torch.tensor(6e4).half()}, tmp_path / "half.safetensors")
    added = query(loaded(flux, f"{tmp_path / 'half.safetensors'}:0.0001")) - query(loaded(flux))
    assert (added - 3.0 * up @ down).abs().max() < 1e-2


def first(name: str, x: Tensor) -> dict[str, Tensor]:
    """``matrices`` with a tensor more, or in the place of another."""
    return {**matrices(), f"{LAYER}.{name}": x}


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (
            first("lora_A.weight", torch.full((2, 32), torch.nan)),
            r"lora_A.weight holds numbers that are not finite",
        ),
        (first("lora_A.weight", torch.ones(0, 32)), r"lora_A.weight has rank 0"),
        (first("alpha", torch.tensor(0.0)), r"alpha is 0, so that the layer would change nothing"),
        (
            first("lora_A.weight", torch.ones(2, 32).to(torch.float8_e4m3fn)),
            r"is stored as F8_E4M3 .*bfloat16",
        ),
        (first("dora_scale", torch.ones(32, 1)), r"is a DoRA \(dora_scale\), which is not merged"),
        (
            first("lora_magnitude_vector", torch.ones(32)),
            r"is a DoRA \(PEFT's lora_magnitude_vector\), which",
        ),
        ({"lycoris_x.lokr_t2": torch.ones(2, 2)}, r"is a LoKr with a core of Tucker's, which is not merged"),
        (
            {"lora_unet_x.hada_t1": torch.ones(2, 2)},
            r"is a LoHa with a core of Tucker's, which",
        ),
        (first("alpha", torch.ones(2)), r"to_q.alpha has shape \(2,\), but a layer has one alpha"),
        (
            first("lokr_w1", torch.ones(2, 2)),
            r"holds LoKr layers and plain ones, the first is .*lora_A.weight; save",
        ),
        (
            {
                **matrices(),
                **{key.replace("transformer", "diffusion_model", 1): x for key, x in matrices().items()},
            },
            r"its layers \S+ and \S+ are both single_tr\S+ of the network",
        ),
        ({"lora_te_x.lora_down.weight": torch.ones(2, 2)}, r"1 layers of text encoders and none of a transf"),
        ({f"{LAYER}.lora_A.weight": torch.ones(2, 32)}, r"has only one of its two matrices \(down\)"),
        (
            first("lora_B.weight", torch.ones(32)),
            r"has matrices of \(32,\) x \(2, 32\), but the layer takes 32",
        ),
        (
            first("lora_B.weight", torch.tensor(1.0)),
            r"has matrices of \(\) x \(2, 32\), but the layer takes 32",
        ),
        (
            {key.replace("to_q", "norm_q"): x for key, x in matrices(width=8).items()},
            r"attn.norm_q is a layer without a matrix",
        ),
    ],
)
def test_what_no_picture_can_come_from_is_refused_before_loading(
    flux: Path, tmp_path: Path, tensors: dict[str, Tensor], sentence: str
) -> None:
    file = tmp_path / "bad.safetensors"
    save_file(tensors, file)
    with pytest.raises(BadValue, match=sentence) as refused:
        loaded(flux, str(file))
    assert refused.value.exit_code == 64


def test_a_network_without_a_loader_says_so(tmp_path: Path, lora: Path) -> None:
    folder = make_tiny("lumina-next", tmp_path / "lumina-next")
    with pytest.raises(BadConfig, match=r"diffusers has no LoRA loader for a LuminaPipeline"):
        loaded(folder, str(lora))


@pytest.mark.parametrize("name", ["torchao-int8", "bitsandbytes-nf4"])
def test_a_quantiser_that_is_not_installed_is_named(flux: Path, tmp_path: Path, name: str) -> None:
    package = name.split("-")[0]
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    folder = quantised(flux, tmp_path / "model", name)
    with pytest.raises(BadConfig, match=rf"quantize {name}, which needs the package {package}: pip install"):
        loaded(folder)


def test_int8_weights_make_nearly_the_same_picture(flux: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    fields = dict(size="80x64", steps=1, native_steps=1, dtype="bfloat16")
    folders = flux, quantised(flux, tmp_path / "model", "torchao-int8")
    plain, small = (render(Request("a red sun", model=str(folder), **fields)) for folder in folders)
    assert 0 < (plain.latents - small.latents).abs().max() < 0.2 * plain.latents.abs().max()
    assert plain.plan.fingerprint != small.plan.fingerprint


@pytest.mark.parametrize("name", ["bitsandbytes-int8", "bitsandbytes-nf4"])
def test_bitsandbytes_without_a_gpu_is_refused_with_what_works(flux: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("bitsandbytes")
    if torch.accelerator.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(BadConfig, match=rf"{name} needs a GPU; on a CPU use torchao-int8 or a .gguf file"):
        loaded(quantised(flux, tmp_path / "model", name))


def test_a_gguf_file_takes_the_place_of_the_transformers_weights(flux: Path, tmp_path: Path) -> None:
    file = tmp_path / "small.gguf"
    write_gguf(flux / "transformer", file)
    folder = quantised(flux, tmp_path / "model", str(file))
    for weights in (folder / "transformer").glob("*.safetensors"):
        weights.unlink()  # nothing of it is read, so it need not be there
    fields = dict(size="80x64", steps=1, native_steps=1, dtype="float32")
    plain, small = (render(Request("a red sun", model=str(each), **fields)) for each in (flux, folder))
    assert 0 < (plain.latents - small.latents).abs().max() < 0.2 * plain.latents.abs().max()
    before = describe_model(str(folder)).weights
    write_gguf(flux / "transformer", file, seed=1)
    assert describe_model(str(folder)).weights != before, "another file of the same name and size"


def test_an_unknown_quantisation_or_a_missing_file_is_refused(flux: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"quantize 'int3' is not known; known: torchao-int8.* or FILE.gguf"):
        describe_model(str(quantised(flux, tmp_path / "a", "int3")))
    with pytest.raises(MissingInput, match=r"quantize nowhere.gguf: the file does not exist"):
        describe_model(str(quantised(flux, tmp_path / "b", "nowhere.gguf")))


def test_text_encoders_on_the_cpu_make_the_same_picture(flux: Path) -> None:
    request = Request("a red sun", model=str(flux), size="80x64", steps=1, native_steps=1, dtype="float32")
    settings = ParallelSettings(text_encoders="cpu")
    assert torch.equal(render(request, parallel=settings).latents, render(request).latents)
