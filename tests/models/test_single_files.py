"""Models in one file, in the names and forms of the published ones: recognised, fitted, loaded, refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from original_names import as_it_is, chroma, flux1, flux2, flux3, krea2, qwen_image21, z_image
from original_names_of_others import (
    AUTOENCODERS,
    WAYS,
    autoencoder,
    flux2_autoencoder,
    hunyuan_image,
    hunyuan_image_autoencoder,
    hunyuan_image_joined,
    lumina2,
    lumina_next,
    sd3,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from imax_dist.cli.main import main
from imax_dist.config import named_configs
from imax_dist.errors import BadConfig, BadValue, MissingInput
from imax_dist.models.files.assembled import named_parts
from imax_dist.models.files.conversion import converted, fit, without_memory
from imax_dist.models.files.single_file import architecture_table, recognise
from imax_dist.models.files.stored import form, header, numbers
from imax_dist.models.find import find_model
from imax_dist.models.load import describe_model, load_model
from imax_dist.models.tiny import make_tiny

CPU = torch.device("cpu")
DATA = Path(__file__).parent / "data"
PREFIX = "model.diffusion_model."
E4M3 = torch.float8_e4m3fn


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pipelines")
    made = {name: make_tiny(name, root / name) for name in WAYS}
    share_queries(made["lumina-next"] / "transformer")
    return made


def share_queries(folder: Path) -> None:
    """Lumina-Next's two attentions have the same, which diffusers keeps twice."""
    tensors = weights(folder)
    own = {name: x for name, x in tensors.items() if ".attn1.to_q." in name or ".attn1.norm_q." in name}
    again = {name.replace("attn1", "attn2"): x.clone() for name, x in own.items()}
    save_file({**tensors, **again}, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("IMAX_MODELS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors


def fp8(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as e4m3, unscaled."""
    return {name: x.to(E4M3) if x.ndim == 2 else x for name, x in tensors.items()}


def fp8_scaled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """ComfyUI's: a scale beside each matrix, and a marker."""
    made: dict[str, Tensor] = {"scaled_fp8": torch.zeros(0, dtype=E4M3)}
    for name, x in tensors.items():
        if x.ndim == 2 and name.endswith(".weight"):
            scale = x.float().abs().max() / 448
            made[name] = (x.float() / scale).to(E4M3)
            made[name.replace(".weight", ".scale_weight")] = scale
        else:
            made[name] = x
    return made


FORMS: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], float, str]] = {
    "bfloat16": (plain, 0.0, "bfloat16"),
    "fp8": (fp8, 2**-4, "fp8 e4m3, unscaled"),
    "fp8 scaled": (fp8_scaled, 2**-4, "fp8 e4m3, scaled"),
}
"""How matrices are stored, and the relative rounding of that: e4m3 keeps 3 bits."""
IN_EIGHT_BITS = ("flux2-dev", "krea-2", "hunyuan-image-2.1")


def single(pipeline: Path, name: str, folder: Path, how: str = "bfloat16") -> Path:
    """The transformer's file with its config.json beside it, and a YAML that names the rest."""
    folder.mkdir()
    store = FORMS[how][0]
    tensors = store(WAYS[name](weights(pipeline / "transformer")))
    save_file({PREFIX + key: x.contiguous() for key, x in tensors.items()}, folder / "net.safetensors")
    shutil.copy(pipeline / "transformer/config.json", folder)
    settings = (pipeline / "imax.yaml").read_text()
    settings += "vae_factor: 16\n" if name.startswith("hunyuan") else ""
    named = f"source: net.safetensors\nvae: {pipeline}\ntext_encoders: {pipeline}\n"
    (folder / "net.yaml").write_text(named + settings)
    return folder / "net.yaml"


def rename(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, "bfloat16") for name in WAYS),
        *((name, how) for name in IN_EIGHT_BITS for how in list(FORMS)[1:]),
    ],
)
def test_a_file_in_the_authors_names_is_the_network_of_the_folder(
    pipelines: dict[str, Path], name: str, how: str, tmp_path: Path
) -> None:
    file = single(pipelines[name], name, tmp_path / "one", how)
    found = load_model(
        str(file), device=CPU, dtype="float32", with_text_encoders=False
    ).transformer.state_dict()
    expected = load_model(
        str(pipelines[name]), device=CPU, dtype="float32", with_text_encoders=False
    ).transformer.state_dict()
    assert set(found) == set(expected)
    for key, x in expected.items():
        allowed = FORMS[how][1] * x.abs().max() if x.ndim == 2 else 0.0
        assert (found[key] - x).abs().max() <= allowed, key
    assert form(header(file.with_name("net.safetensors"))) == FORMS[how][2]


def test_a_gguf_file_is_a_model_with_its_parts_beside(pipelines: dict[str, Path], tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    file = single(pipelines["z-image-turbo"], "z-image-turbo", tmp_path / "one")
    writer = gguf.GGUFWriter(str(file.with_name("net.gguf")), "lumina2")
    for name, x in z_image(weights(pipelines["z-image-turbo"] / "transformer")).items():
        writer.add_tensor(name, x.float().numpy())
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    rename(file, "source: net.safetensors", "source: net.gguf")
    found, expected = (
        load_model(str(each), device=CPU, dtype="float32", with_text_encoders=False).transformer.state_dict()
        for each in (file, pipelines["z-image-turbo"])
    )
    assert all(torch.equal(found[key], x) for key, x in expected.items())


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_an_autoencoder_in_latent_diffusions_names_is_that_of_the_folder(
    pipelines: dict[str, Path], name: str, tmp_path: Path
) -> None:
    file = single(pipelines[name], name, tmp_path / "one")
    (tmp_path / "vae").mkdir()
    tensors = AUTOENCODERS[name](weights(pipelines[name] / "vae"))
    save_file({key: x.contiguous() for key, x in tensors.items()}, tmp_path / "vae/ae.safetensors")
    shutil.copy(pipelines[name] / "vae/config.json", tmp_path / "vae")
    file.write_text(
        file.read_text().replace(f"vae: {pipelines[name]}", f"vae: {tmp_path}/vae/ae.safetensors")
    )
    found, expected = (
        load_model(str(each), device=CPU, dtype="float32", with_text_encoders=False).vae.state_dict()
        for each in (file, pipelines[name])
    )
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], x) for key, x in expected.items())


def test_flux1s_published_names_and_shapes_pass_the_converter_whole() -> None:
    """flux1-dev.safetensors: 780 tensors, by the names of black-forest-labs/flux and diffusers' converter."""
    from diffusers import FluxTransformer2DModel

    config = architecture_table("flux-dev")["components"]["transformer"]
    network = without_memory(FluxTransformer2DModel, config)
    originals = {name: tuple(x.shape) for name, x in flux1(network.state_dict()).items()}
    published = json.loads((DATA / "flux1-dev.json").read_text())
    listed = {
        name.replace("{}", str(block)): tuple(shape)
        for name, (blocks, shape) in published["tensors"].items()
        for block in range(blocks)
    }
    assert len(listed) == 780
    assert originals == listed
    assert fit(listed, FluxTransformer2DModel, config).faults == 0
    assert fit(
        {k: v for k, v in listed.items() if k != "img_in.bias"}, FluxTransformer2DModel, config
    ).refused
    extra = fit({**listed, "more.weight": (1,)}, FluxTransformer2DModel, config)
    assert extra.left_over == ("more.weight",)


@pytest.mark.parametrize(
    ("name", "names"), [("flux-dev", flux1), ("flux-schnell", flux1), ("chroma", chroma)]
)
def test_values_arrive_where_they_belong_at_the_published_widths(name: str, names: Any) -> None:
    """Which these converters hold; only two columns of each matrix are made. Joined matrices are taken apart
    without copies, so that a mapped file stays mapped: only halves that change places are new memory."""
    import diffusers

    table = architecture_table(name)["components"]["transformer"]
    config = {**table, "num_layers": 2, "num_single_layers": 2}
    kind = getattr(diffusers, table["_class_name"])
    generator = torch.Generator().manual_seed(0)
    narrow = {
        key: torch.randn(x.shape[0], *[2] * (x.ndim - 1), generator=generator)
        for key, x in without_memory(kind, config).state_dict().items()
    }
    given = names(narrow)
    places = {x.untyped_storage().data_ptr() for x in given.values()}
    made = converted(given, kind, config, set(narrow))
    assert set(made) == set(narrow)
    assert all(torch.equal(made[key], x) for key, x in narrow.items())
    copied = {key for key, x in made.items() if x.untyped_storage().data_ptr() not in places}
    assert copied <= {"norm_out.linear.weight", "norm_out.linear.bias"}


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("chroma", chroma), ("flux-schnell", flux1), ("flux-fill", flux1), ("flux2-dev", flux2),
        ("flux2-klein", flux2), ("flux3-klein-base", flux3), ("hunyuan-image-2.1", hunyuan_image),
        ("hunyuan-image-2.1-distilled", hunyuan_image_joined), ("krea-2", krea2), ("lumina-image-2", lumina2),
        ("lumina-next", lumina_next), ("qwen-image", as_it_is), ("qwen-image-2.1", qwen_image21),
        ("sd3.5-large", sd3), ("sd3.5-medium", sd3), ("z-image-turbo", z_image),
    ],
)  # fmt: skip
def test_networks_of_the_published_sizes_pass_the_converters_whole(name: str, names: Any) -> None:
    """Nothing missing, nothing left over, every shape; the names are those written by hand for the tests."""
    import diffusers

    table = architecture_table(name)["components"]["transformer"]
    if "pos_embed_max_size" in table:
        table["pos_embed_max_size"] = 8  # a table of positions is made of it, in gigabytes
    kind = getattr(diffusers, table["_class_name"])
    originals = names(without_memory(kind, table).state_dict())
    assert fit({key: tuple(x.shape) for key, x in originals.items()}, kind, table).faults == 0


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("flux-dev", autoencoder), ("flux2-dev", flux2_autoencoder), ("lumina-next", autoencoder),
        ("hunyuan-image-2.1", hunyuan_image_autoencoder),
    ],
)  # fmt: skip
def test_autoencoders_of_the_published_sizes_pass_the_converters_whole(name: str, names: Any) -> None:
    import diffusers

    table = architecture_table(name)["components"]["vae"]
    kind = getattr(diffusers, table["_class_name"])
    originals = names(without_memory(kind, table).state_dict())
    assert fit({key: tuple(x.shape) for key, x in originals.items()}, kind, table).faults == 0


def test_guiders_of_a_named_folder_come_along(pipelines: dict[str, Path], tmp_path: Path) -> None:
    """HunyuanImage 2.1's guidance has a momentum by a file of its own."""
    pipeline = pipelines["hunyuan-image-2.1"]
    file = single(pipeline, "hunyuan-image-2.1", tmp_path / "one")
    found = describe_model(str(file)).momentum
    assert len(found) == 2
    assert found == describe_model(str(pipeline)).momentum


@pytest.mark.parametrize(
    ("file_name", "source"),
    [
        ("net", "Qwen-Image"), ("qwen_image_edit_fp8_e4m3fn", "Qwen-Image-Edit"),
        ("Qwen-Image-Edit-2509-Q8", "Qwen-Image-Edit-2509"),
        ("qwen_image_edit_2511_bf16", "Qwen-Image-Edit-2511"),
    ],
)  # fmt: skip
def test_an_editor_whose_tensors_are_anothers_is_told_by_the_files_name(
    pipelines: dict[str, Path], tmp_path: Path, file_name: str, source: str
) -> None:
    file = single(pipelines["qwen-image"], "qwen-image", tmp_path / "one").with_name("net.safetensors")
    named = file.rename(file.with_name(f"{file_name}.safetensors"))
    if "2511" in file_name:
        rename(named.with_name("config.json"), '"zero_cond_t": false', '"zero_cond_t": true')
    found = recognise(named)
    assert found.summary().startswith(f"the transformer of {source}, ")
    assert architecture_table("qwen-image-edit-2511")["components"]["transformer"]["zero_cond_t"]


def beside_its_config(name: str, folder: Path) -> Path:
    """The transformer of a tiny pipeline as a file whose name tells nothing."""
    pipeline = make_tiny(name, folder / "pipeline")
    shutil.copy(pipeline / "transformer/diffusion_pytorch_model.safetensors", folder / "net.safetensors")
    shutil.copy(pipeline / "transformer/config.json", folder)
    return folder / "net.safetensors"


@pytest.mark.parametrize("name", ["flux-dev", "lumina-image-2", "z-image-turbo"])
def test_a_tensor_that_lacks_in_diffusers_names_is_named(tmp_path: Path, name: str) -> None:
    file = beside_its_config(name, tmp_path)
    tensors = load_file(file)
    lost = next(key for key in tensors if key.endswith("to_k.weight"))
    save_file({key: x for key, x in tensors.items() if key != lost}, file)
    message = rf"but does not fit it: 1 tensor missing, the first is {re.escape(lost)}$"
    with pytest.raises(BadValue, match=message):
        recognise(file)


@pytest.mark.parametrize("mark", ["ref_time_in.in_layer.weight", "target_timestep_embedder.linear_1.weight"])
def test_flux3s_distilled_model_is_refused_with_the_form_that_runs(tmp_path: Path, mark: str) -> None:
    names = ("early_stream_modulations.image.lin.weight", mark)
    save_file({PREFIX + name: torch.zeros(1) for name in names}, tmp_path / "x.safetensors")
    with pytest.raises(BadValue, match=r"x.safetensors is FLUX.3's distilled model, .*read from a folder"):
        recognise(tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["flux-dev", "flux-schnell", "flux-fill", "qwen-image"])
def test_a_config_beside_a_file_says_which_of_a_network_it_is(tmp_path: Path, name: str) -> None:
    found = recognise(beside_its_config(name, tmp_path))
    assert found.table["settings"] == name
    assert found.config == json.loads((tmp_path / "config.json").read_text())


def test_a_key_of_the_config_beside_a_file_tells_the_editor_of_november(tmp_path: Path) -> None:
    file = beside_its_config("qwen-image", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "zero_cond_t": True}))
    assert recognise(file).table["settings"] == "qwen-image-edit-2511"
    assert recognise(file).config["zero_cond_t"]


def test_parts_named_on_the_command_line_are_those_of_a_yaml(
    pipelines: dict[str, Path], tmp_path: Path
) -> None:
    pipeline = pipelines["z-image-turbo"]
    file = single(pipeline, "z-image-turbo", tmp_path / "one")
    net = str(file.with_name("net.safetensors"))
    named = named_parts(net, vae=str(pipeline), text_encoders=[str(pipeline)])
    assert named == named_parts(net, vae=str(pipeline), text_encoders=[str(pipeline)])
    found, expected = (
        load_model(str(each), device=CPU, dtype="float32", with_text_encoders=False).transformer.state_dict()
        for each in (named, file)
    )
    assert all(torch.equal(found[key], x) for key, x in expected.items())
    assert named_parts(net, vae=None, text_encoders=()) == net
    with pytest.raises(BadValue, match=r"vae and encoder go with a model in one file, but z-image-turbo is"):
        named_parts("z-image-turbo", vae=str(pipeline), text_encoders=())


@pytest.mark.parametrize("name", ["nf4", "nf4_nested", "fp4"])
def test_four_bits_are_the_numbers_that_bitsandbytes_makes_of_them(name: str) -> None:
    """``four_bits.safetensors`` was written by bitsandbytes 0.50.2, its own numbers in bfloat16 beside."""
    file = DATA / "four_bits.safetensors"
    made = numbers(file, f"{name}.", torch.bfloat16)["weight"]
    expected = load_file(file)[f"expected.{name}.weight"]
    assert torch.equal(made.float(), expected)


NOTED = f"{PREFIX}transformer_blocks.0.attn.to_q"


@pytest.mark.parametrize("kind", ["mxfp8", "nvfp4", "int8_tensorwise"])
@pytest.mark.parametrize("place", ["tensor", "header"])
def test_a_form_that_is_not_read_is_named_without_loading_and_by_loading_alike(
    pipelines: dict[str, Path], tmp_path: Path, kind: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """ComfyUI notes a layer's form in a tensor beside it, or those of all layers in the header."""
    named = single(pipelines["qwen-image"], "qwen-image", tmp_path / "one")
    net, note = named.with_name("net.safetensors"), {"format": kind}
    tensors, words = load_file(net), None
    if place == "tensor":
        tensors[f"{NOTED}.comfy_quant"] = torch.frombuffer(
            bytearray(json.dumps(note).encode()), dtype=torch.uint8
        )
    else:
        words = {"_quantization_metadata": json.dumps({"layers": {NOTED: note}})}
    save_file(tensors, net, metadata=words)
    sentence = (
        f"{net}: tensor {NOTED}.weight is stored as {kind}, which is not read; take a bf16, fp8 or GGUF"
    )
    assert main(["model", "check", str(named), "--no-load"]) == 64
    assert sentence in capsys.readouterr().err
    with pytest.raises(BadValue, match=re.escape(sentence)):
        numbers(net, PREFIX, torch.bfloat16)


@pytest.mark.parametrize("words", ["{", "[]", '{"layers": {"a": 1}}'])
def test_notes_that_are_none_are_one_sentence(pipelines: dict[str, Path], tmp_path: Path, words: str) -> None:
    net = single(pipelines["qwen-image"], "qwen-image", tmp_path / "one").with_name("net.safetensors")
    save_file(load_file(net), net, metadata={"_quantization_metadata": words})
    with pytest.raises(BadValue, match=r"net.safetensors: its metadata on stored formats is not readable: "):
        recognise(net)


def test_whole_numbers_without_a_scale_are_refused_without_loading(
    pipelines: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = single(pipelines["qwen-image"], "qwen-image", tmp_path / "one")
    damaged(
        named, lambda tensors: tensors.update({f"{NOTED}.weight": tensors[f"{NOTED}.weight"].to(torch.int8)})
    )
    assert main(["model", "check", str(named), "--no-load"]) == 64
    assert f"tensor {NOTED}.weight is stored as int8, whose scale is not known" in capsys.readouterr().err


KINDS = {
    "ae": ("decoder.conv_in.weight", "an autoencoder", "--vae", "vae"),
    "qwen vae": ("decoder.conv1.weight", "an autoencoder", "--vae", "vae"),
    "clip_l": (
        "text_model.embeddings.token_embedding.weight",
        "a text encoder",
        "--encoder",
        "text_encoders",
    ),
    "t5xxl": ("shared.weight", "a text encoder", "--encoder", "text_encoders"),
    "qwen_3_4b": ("model.embed_tokens.weight", "a text encoder", "--encoder", "text_encoders"),
    "kohya": ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "a LoRA", "--lora", "loras"),
    "lokr": ("lycoris_transformer_blocks_0_attn_to_q.lokr_w1", "a LoRA", "--lora", "loras"),
    "loha": ("transformer.transformer_blocks.0.attn.to_q.hada_w1_a", "a LoRA", "--lora", "loras"),
}
"""By a published file: a tensor of it, what it is, its option and ComfyUI's folder."""


@pytest.mark.parametrize("name", KINDS)
def test_what_is_given_in_a_transformers_place_is_named_with_its_own(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tensor, what, option, folder = KINDS[name]
    save_file({"more.weight": torch.zeros(1), tensor: torch.zeros(2, 2)}, tmp_path / "x.safetensors")
    assert main(["model", "check", str(tmp_path / "x.safetensors")]) == 64
    said = capsys.readouterr().err
    assert f"is {what} by its tensor {tensor}, not a transformer: give it as {option} beside" in said
    assert f"models/{folder}" in said
    assert "networks supported" not in said


def test_a_checkpoint_of_an_unknown_transformer_is_not_named_after_its_parts(tmp_path: Path) -> None:
    """It holds an autoencoder and text encoders too, behind their prefixes."""
    names = ("first_stage_model.decoder.conv_in.weight", "text_encoders.a.transformer.shared.weight", "net.x")
    save_file({name: torch.zeros(1) for name in names}, tmp_path / "x.safetensors")
    with pytest.raises(BadValue, match=r"3 tensors, of no network .* not one of the supported networks: "):
        recognise(tmp_path / "x.safetensors")


def test_every_described_architecture_can_be_built_and_has_a_mark_of_its_own() -> None:
    """Each part once, with two of its equal layers and two positions a side, or it takes seconds."""
    import diffusers

    parts = {}
    for name in named_configs("architectures"):
        table = architecture_table(name)
        for part in ("transformer", "vae"):
            config = table["components"][part]
            few = {key: min(config[key], 2) for key in config.keys() & MORE_OF_THE_SAME}
            parts[json.dumps(config | few, sort_keys=True)] = name, config | few
    for name, config in parts.values():
        network = without_memory(getattr(diffusers, config["_class_name"]), config)
        assert set(config) - {"_class_name"} <= set(network.config), name


MORE_OF_THE_SAME = {"num_layers", "num_single_layers", "n_layers", "pos_embed_max_size"}


def damaged(file: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    net = file.with_name("net.safetensors")
    tensors = load_file(net)
    change(tensors)
    save_file(tensors, net)


def drop(tensors: dict[str, Tensor]) -> None:
    del tensors[f"{PREFIX}transformer_blocks.0.attn.to_q.weight"]


def widen(tensors: dict[str, Tensor]) -> None:
    name = f"{PREFIX}transformer_blocks.0.attn.to_q.weight"
    tensors[name] = torch.zeros(tensors[name].shape[0] + 1, tensors[name].shape[1])


def add(tensors: dict[str, Tensor]) -> None:
    tensors[f"{PREFIX}more.weight"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"Qwen-Image, but does not fit it: 1 tensor missing, .*transformer_blocks.0.attn.to_q.weight"),
        (
            widen,
            r"1 tensor of another shape: transformer_blocks.0.attn.to_q.weight is \(49, 48\) in the file ",
        ),
        (add, r"1 tensor that it does not have, the first is more.weight"),
    ],
    ids=["missing", "shape", "left over"],
)
def test_a_file_that_does_not_fit_is_refused_with_the_tensor(
    pipelines: dict[str, Path], tmp_path: Path, change: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    file = single(pipelines["qwen-image"], "qwen-image", tmp_path / "one")
    damaged(file, change)
    with pytest.raises(BadValue, match=message):
        find_model(str(file))


def test_a_vae_of_another_network_is_refused(pipelines: dict[str, Path], tmp_path: Path) -> None:
    file = single(pipelines["qwen-image"], "qwen-image", tmp_path / "one")
    (tmp_path / "other").mkdir()
    other = shutil.copy(
        pipelines["z-image-turbo"] / "vae/diffusion_pytorch_model.safetensors", tmp_path / "other"
    )
    rename(file, f"vae: {pipelines['qwen-image']}", f"vae: {other}")
    with pytest.raises(BadValue, match=r"is not the autoencoder of Qwen/Qwen-Image: "):
        find_model(str(file))


def test_what_is_nowhere_has_its_usual_place(pipelines: dict[str, Path], tmp_path: Path) -> None:
    file = single(pipelines["z-image-turbo"], "z-image-turbo", tmp_path / "one")
    with pytest.raises(MissingInput) as refusal:
        find_model(str(file.with_name("net.safetensors")))
    said = str(refusal.value)
    assert "is the transformer of Z-Image-Turbo" in said
    assert "vae: ae.safetensors (ComfyUI), or vae/ of Tongyi-MAI/Z-Image-Turbo" in said
    assert "tokenizer: tokenizer/ of Tongyi-MAI/Z-Image-Turbo on the hub" in said


def test_other_parts_are_found_in_the_folders_of_imax_models(
    pipelines: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = single(pipelines["z-image-turbo"], "z-image-turbo", tmp_path / "one")
    monkeypatch.setenv("IMAX_MODELS", str(pipelines["z-image-turbo"].parent))
    settings, folder = find_model(str(file.with_name("net.safetensors")))
    assert settings.native_side == 1024, "Z-Image's own settings"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        "transformer", "vae", "text_encoder", "tokenizer",
    }  # fmt: skip


def test_the_whole_of_it_is_loaded_and_changes_with_the_file(
    pipelines: dict[str, Path], tmp_path: Path
) -> None:
    file = single(pipelines["z-image-turbo"], "z-image-turbo", tmp_path / "one")
    model: Any = load_model(str(file), device=CPU)
    assert model.spec.settings.native_side == 64
    first = model.spec.weights
    damaged(file, lambda tensors: next(iter(tensors.values())).add_(1.0))
    assert load_model(str(file), device=CPU, with_text_encoders=False).spec.weights != first


def test_a_poster_from_files_that_lie_apart_is_that_of_the_folder(
    pipelines: dict[str, Path], tmp_path: Path
) -> None:
    pipeline = pipelines["z-image-turbo"]
    made = []
    for number, model in enumerate((single(pipeline, "z-image-turbo", tmp_path / "one"), pipeline)):
        out = tmp_path / f"{number}.png"
        how = ["--size", "96x80", "--steps", "1", "--native-steps", "1", "--checkpoint-every", "0", "-q"]
        assert main(["generate", "a red sun", "--model", str(model), *how, "--out", str(out)]) == 0
        made.append(np.asarray(Image.open(out)))
    assert made[0].std() > 1.0
    assert np.array_equal(*made)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source: net.ckpt\n", r"is a pickled file \(.ckpt\), which is never opened"),
        ("vae: x\n", r"source must"),
    ],
)
def test_a_yaml_that_names_no_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    (tmp_path / "net.ckpt").write_bytes(b"")
    with pytest.raises((BadConfig, BadValue), match=message):
        find_model(str(tmp_path / "m.yaml"))


def test_one_key_of_the_yaml_is_laid_over_the_architectures_settings(
    pipelines: dict[str, Path], tmp_path: Path
) -> None:
    pipeline = pipelines["z-image-turbo"]
    file = single(pipeline, "z-image-turbo", tmp_path / "one")
    named = f"source: net.safetensors\nvae: {pipeline}\ntext_encoders: [{pipeline}]\n"
    file.write_text(named + "native_side: 64\nsteps: {native: 7}\n")
    settings = find_model(str(file))[0]
    assert (settings.native_side, settings.steps.native, settings.steps.extrapolated) == (64, 7, 8)
    file.write_text(named + "native_sides: 64\n")
    with pytest.raises(BadConfig, match=r"net.yaml: unknown key 'native_sides'; did you mean 'native_side'"):
        find_model(str(file))


def test_a_config_that_asks_for_its_own_code_is_refused(pipelines: dict[str, Path], tmp_path: Path) -> None:
    file = single(pipelines["qwen-image"], "qwen-image", tmp_path / "one")
    config = file.with_name("config.json")
    own_code = {"auto_map": {"AutoModel": "evil.Net"}}
    config.write_text(json.dumps({**json.loads(config.read_text()), **own_code}))
    with pytest.raises(BadValue, match=r"names code to run \(auto_map\), which is never run"):
        find_model(str(file))
