"""A model is found by name, folder or hub id, and every way it can be wrong has its sentence."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeAlias

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_flux import SETTINGS, edit_json, make_tiny_flux

from imax_dist.config import load_named
from imax_dist.errors import BadConfig, BadValue, ImaxError, MissingInput
from imax_dist.models.catalogue import completeness
from imax_dist.models.find import EMBEDDED, WANTED_FILES, find_model
from imax_dist.models.load import describe_model, load_model
from imax_dist.models.networks.flux import AXES, ROPE_THETA
from imax_dist.models.spec import ModelSettings
from imax_dist.models.weights import weights_hash
from imax_dist.settings_mapping import from_mapping

CPU = torch.device("cpu")
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_flux(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model to damage."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def named(name: str) -> ModelSettings:
    return from_mapping(ModelSettings, load_named("models", name), where=name)


def test_the_embedded_model_is_found_without_a_network() -> None:
    settings, folder = find_model("embedded")
    assert folder == EMBEDDED
    assert settings == named("embedded")


@pytest.mark.parametrize(
    ("part", "pickled"), [("transformer", "diffusion_pytorch_model"), ("text_encoder", "pytorch_model")]
)
def test_pickled_weights_are_not_opened_beside_a_decoy(copy: Path, part: str, pickled: str) -> None:
    (weights,) = (copy / part).glob("*.safetensors")
    torch.save(load_file(weights), copy / part / f"{pickled}.bin")
    weights.rename(weights.with_name("decoy.safetensors"))
    with pytest.raises(MissingInput, match=r"does not load from .*no file named .*\.safetensors"):
        load_model(str(copy), device=CPU)


def test_a_folder_with_its_own_settings_is_found(tiny: Path) -> None:
    settings, folder = find_model(str(tiny))
    assert (folder, settings.source) == (tiny, str(tiny))
    assert (settings.native_side, settings.steps.extrapolated, settings.text_tokens) == (64, 4, 7)


@pytest.mark.parametrize(("distilled", "like"), [(True, "flux-dev"), (False, "flux-schnell")])
def test_a_flux_folder_without_settings_gets_those_of_its_kind(
    copy: Path, distilled: bool, like: str
) -> None:
    (copy / "imax.yaml").unlink()
    edit_json(copy / "transformer/config.json", guidance_embeds=distilled)
    found, expected = find_model(str(copy))[0], named(like)
    assert found.source == str(copy)
    assert (found.steps, found.guidance_scale, found.text_tokens, found.native_shift, found.native_side) == (
        expected.steps,
        expected.guidance_scale,
        expected.text_tokens,
        expected.native_shift,
        1024,
    )


def test_the_facts_come_from_the_config_files(tiny: Path) -> None:
    spec = describe_model(str(tiny))
    assert (spec.heads, spec.head_dim, spec.rope_axes) == (4, 16, (4, 6, 6))
    assert (spec.latent_channels, spec.vae_factor, spec.patch, spec.token_pixels) == (16, 8, 2, 16)
    assert (spec.native_tokens, spec.guidance, spec.rope_theta) == (4, "classifier_free", 10_000.0)


def test_a_released_flux_configuration_without_axes_gets_the_classes_own(copy: Path) -> None:
    """FLUX.1-dev's transformer/config.json holds no axes_dims_rope: (16, 56, 56) is the class's default."""
    released = {"attention_head_dim": 128, "num_attention_heads": 24, "in_channels": 64}
    (copy / "transformer/config.json").write_text(json.dumps({**released, "guidance_embeds": True}))
    spec = describe_model(str(copy))
    assert (spec.rope_axes, spec.heads, spec.guidance) == ((16, 56, 56), 24, "distilled")


def test_the_default_axes_are_those_diffusers_builds() -> None:
    from diffusers import FluxTransformer2DModel

    assert inspect.signature(FluxTransformer2DModel).parameters["axes_dims_rope"].default == AXES
    built = FluxTransformer2DModel(
        in_channels=4, num_layers=0, num_single_layers=0, attention_head_dim=8, num_attention_heads=1,
        joint_attention_dim=4, pooled_projection_dim=4, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    assert built.pos_embed.theta == ROPE_THETA


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (
            "embeded",
            BadConfig,
            r"model 'embeded' is not known; did you mean 'embedded'\? known: chroma, embedded",
        ),
        ("flux-dve", BadConfig, r"did you mean 'flux-dev'\?.*or a hub id like black-forest-labs/FLUX.1-dev"),
        ("a/b/c", BadConfig, r"model 'a/b/c' is not known"),
        ("./no-such-folder", MissingInput, r"model folder ./no-such-folder does not exist"),
        ("/no/such/folder", MissingInput, r"model folder /no/such/folder does not exist"),
    ],
)
def test_an_unknown_model_is_refused(name: str, kind: type[ImaxError], message: str) -> None:
    with pytest.raises(kind, match=message):
        find_model(name)


def test_a_hub_id_without_network_or_cache_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        MissingInput, match=r"no-one/no-model is not in the local cache and .*download it first"
    ):
        find_model("no-one/no-model")


Damage: TypeAlias = Callable[[Path], object]


def remove(path: str) -> Damage:
    return lambda folder: (folder / path).unlink()


def cut(path: str) -> Damage:
    return lambda folder: (folder / path).write_bytes((folder / path).read_bytes()[:3000])


def write(path: str, text: str) -> Damage:
    return lambda folder: (folder / path).write_text(text)


def edit(path: str, **changes: object) -> Damage:
    return lambda folder: edit_json(folder / path, **changes)


def drop_tensor(path: str) -> Damage:
    """Write the weights again without their first tensor."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / path)
        del tensors[sorted(tensors)[0]]
        save_file(tensors, folder / path, metadata={"format": "pt"})

    return damage


DAMAGES: dict[str, tuple[Damage, type[ImaxError], str]] = {
    "no_index": (remove("model_index.json"), MissingInput, r"has no model_index.json; it is not"),
    "index_not_json": (write("model_index.json", "{"), BadConfig, r"model_index.json is not readable JSON"),
    "index_a_list": (write("model_index.json", "[]"), BadConfig, r"its top level is not an object"),
    "other_class": (
        edit("model_index.json", _class_name="FooPipeline"),
        BadValue,
        r"is a FooPipeline; supported: FluxPipeline",
    ),
    "no_rope": (
        edit("model_index.json", _class_name="PixArtSigmaPipeline"),
        BadValue,
        r"PixArtSigmaPipeline: its transformer has no rotary positions, which the method scales",
    ),
    "no_vae": (remove("vae/config.json"), MissingInput, r"incomplete: vae/config.json is missing"),
    "no_text_encoder": (
        remove("text_encoder/config.json"),
        MissingInput,
        r"incomplete: text_encoder/config.json is missing",
    ),
    "no_tokenizer": (
        remove("tokenizer_2/tokenizer_config.json"),
        MissingInput,
        r"incomplete: tokenizer_2/tokenizer_config.json is missing",
    ),
    "no_weights": (remove(TRANSFORMER), MissingInput, r"transformer has no .safetensors weights"),
    "axes": (
        edit("transformer/config.json", axes_dims_rope=[4, 4, 4]),
        BadConfig,
        r"position axes \(4, 4, 4\) do not add up to head_dim 16",
    ),
    "channels": (
        edit("transformer/config.json", in_channels=32),
        BadConfig,
        r"takes 32 channels, but 2 x 2 patches of the VAE's 16 channels make 64",
    ),
    "wrong_value": (
        edit("transformer/config.json", attention_head_dim="many"),
        BadConfig,
        r"lacks a key or holds a wrong value: .*'many'",
    ),
    "missing_key": (
        write("vae/config.json", '{"latent_channels": 16}'),
        BadConfig,
        r"lacks a key or holds a wrong value: 'block_out_channels'",
    ),
    "unknown_setting": (
        write("imax.yaml", SETTINGS + "text_token: 4\n"),
        BadConfig,
        r"imax.yaml: unknown key 'text_token'; did you mean 'text_tokens'",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_does_not_fit_is_refused_before_anything_is_loaded(copy: Path, damage: str) -> None:
    do, kind, message = DAMAGES[damage]
    do(copy)
    with pytest.raises(kind, match=message):
        describe_model(str(copy))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("native_side: 0", r"native_side must be at least 1, got 0"),
        ("text_tokens: 0", r"text_tokens must be at least 1, got 0"),
        ("steps: {native: 0, extrapolated: 4}", r"steps.native must be at least 1, got 0"),
        ("steps: {native: 3, extrapolated: -1}", r"steps.extrapolated must be at least 1, got -1"),
        ("rope_factor: 0", r"rope_factor must be above 0, got 0.0"),
        ("native_shift: -1.5", r"native_shift must be above 0, got -1.5"),
        ("shift_factor: 0", r"shift_factor must be above 0, got 0.0"),
    ],
)
def test_settings_no_model_can_have_are_refused(copy: Path, line: str, message: str) -> None:
    key = line.partition(":")[0]
    others = [own for own in SETTINGS.splitlines() if not own.startswith(f"{key}:")]
    (copy / "imax.yaml").write_text("\n".join([*others, line]))
    with pytest.raises(BadConfig, match=message):
        find_model(str(copy))


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "text_encoder_2"])
@pytest.mark.parametrize("damage", [cut, drop_tensor], ids=["torn", "a_tensor_missing"])
def test_weights_that_are_not_whole_are_refused(
    copy: Path, part: str, damage: Callable[[str], Damage]
) -> None:
    file = next((copy / part).glob("*.safetensors"))
    damage(f"{part}/{file.name}")(copy)
    with pytest.raises(MissingInput, match=r"does not load from|is incomplete: "):
        load_model(str(copy), device=CPU)


def test_a_torn_tokenizer_is_refused(copy: Path) -> None:
    (copy / "tokenizer_2/tokenizer.json").write_text("{")
    with pytest.raises(MissingInput, match=r"does not load from"):
        load_model(str(copy), device=CPU)


@pytest.mark.parametrize("dtype", ["float8", "int8", "torch.float32"])
def test_an_unknown_dtype_is_refused(tiny: Path, dtype: str) -> None:
    with pytest.raises(BadConfig, match=r"is not known; choose float64, float32, bfloat16, float16"):
        load_model(str(tiny), device=CPU, dtype=dtype)


@pytest.mark.parametrize(("dtype", "expected"), [(None, torch.float32), ("float64", torch.float64)])
def test_the_dtype_is_the_settings_or_the_one_asked_for(
    tiny: Path, dtype: str | None, expected: torch.dtype
) -> None:
    assert load_model(str(tiny), device=CPU, dtype=dtype, with_text_encoders=False).dtype == expected


def test_the_weights_hash_changes_with_one_byte_and_with_a_name(copy: Path, tiny: Path) -> None:
    before = weights_hash(tiny)
    assert weights_hash(copy) == before
    file = copy / TRANSFORMER
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    changed = weights_hash(copy)
    assert changed != before
    file.rename(file.with_name("model.safetensors"))
    assert weights_hash(copy) not in (before, changed)


def test_settings_and_configs_are_not_weights(copy: Path, tiny: Path) -> None:
    (copy / "imax.yaml").write_text(SETTINGS.replace("native_side: 64", "native_side: 128"))
    assert weights_hash(copy) == weights_hash(tiny)


def test_the_embedded_weights_are_small_and_safetensors_only() -> None:
    """What ships stays shippable: at most 32 MB in all, no other format."""
    files = [path for path in EMBEDDED.rglob("*") if path.is_file()]
    assert sum(path.lstat().st_size for path in files) <= 32_000_000
    assert {path.suffix for path in files} == {".json", ".safetensors"}


def test_hub_downloads_leave_out_the_second_copy_of_the_weights() -> None:
    """FLUX.1's repositories hold flux1-dev.safetensors (24 GB) at the top besides the component folders."""

    def wanted(path: str) -> bool:
        return any(fnmatch(path, pattern) for pattern in WANTED_FILES)

    needed = [str(path.relative_to(EMBEDDED)) for path in EMBEDDED.rglob("*") if path.is_file()]
    assert all(map(wanted, [*needed, "tokenizer_2/spiece.model", "tokenizer/merges.txt", "model_index.json"]))
    assert wanted("transformer/diffusion_pytorch_model-00001-of-00003.safetensors")
    assert not any(map(wanted, ["flux1-dev.safetensors", "ae.safetensors", "transformer/model.bin"]))


def test_a_settings_file_of_one_key_is_laid_over_the_architectures_settings(
    tiny: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tiny, copy)
    (copy / "imax.yaml").unlink()
    bare = find_model(str(copy))[0]
    (copy / "imax.yaml").write_text("quantize: torchao-int8\nsteps: {native: 7}\n")
    laid = find_model(str(copy))[0]
    assert (laid.quantize, laid.steps.native) == ("torchao-int8", 7)
    assert laid.steps.extrapolated == bare.steps.extrapolated
    assert (laid.native_side, laid.source) == (bare.native_side, str(copy))


FLUX_KEY = "double_blocks.0.img_attn.norm.key_norm.scale"


def test_a_single_file_of_no_whole_network_is_refused_by_what_it_is(tmp_path: Path) -> None:
    known, unknown = tmp_path / "flux1.safetensors", tmp_path / "other.safetensors"
    save_file({FLUX_KEY: torch.ones(1), "img_in.weight": torch.ones(2, 2)}, known)
    save_file({"weight": torch.ones(1)}, unknown)
    with pytest.raises(BadValue, match=r"looks like black-forest-labs/FLUX.1-.*its tensors are not read"):
        find_model(str(known))
    with pytest.raises(BadValue, match=r"of no network that diffusers knows\), which is not one of"):
        find_model(str(unknown))
    known.write_bytes(known.read_bytes()[:20])
    with pytest.raises(BadValue, match=r"is not a readable .safetensors file"):
        find_model(str(known))


@pytest.mark.parametrize("ending", ["ckpt", "bin", "pt", "pth"])
def test_a_pickled_model_is_refused_unopened(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"model.{ending}"
    file.write_bytes(b"")
    with pytest.raises(BadValue, match=rf"is a pickled file \(.{ending}\), which is never opened"):
        find_model(str(file))


def test_a_model_file_that_is_not_there_is_no_hub_id() -> None:
    with pytest.raises(MissingInput, match=r"model file models/flux1.safetensors does not exist"):
        find_model("models/flux1.safetensors")


def test_a_folder_that_lacks_a_networks_weights_is_there_in_part(tiny: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tiny, copy)
    assert completeness(copy) == "yes"
    next((copy / "transformer").glob("*.safetensors")).unlink()
    assert completeness(copy) == "part"
