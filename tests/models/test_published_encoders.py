"""Text encoders in the names of the published files: read as those of a folder, at their published sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from imax_dist.config import named_configs
from imax_dist.errors import BadValue
from imax_dist.models.files import single_file
from imax_dist.models.files.encoder_files import WHOLE_LAYERS
from imax_dist.models.files.encoder_fit import encoder_report
from imax_dist.models.files.single_file import encoder_table
from imax_dist.models.find import find_model
from imax_dist.models.load import load_model
from imax_dist.models.tiny import make_tiny
from imax_dist.models.tiny.text import clip_config, clip_tokenizer

CPU = torch.device("cpu")
Tensors = dict[str, Tensor]
TOKENIZER = torch.arange(16, dtype=torch.uint8)
"""ComfyUI keeps some tokenizers in a tensor of the file."""


def named(tensors: Mapping[str, Tensor], *pairs: tuple[str, str]) -> Tensors:
    made = {}
    for name, x in tensors.items():
        for pattern, new in pairs:
            name = re.sub(pattern, new, name)
        made[name] = x.contiguous()
    return made


def qwen_vl(tensors: Mapping[str, Tensor]) -> Tensors:
    """qwen_2.5_vl_7b and Qwen's own first names: the eye beside the model, not in it."""
    bare = named(tensors, (r"^model\.(visual|language_model)\.", r"\1."))
    return named(bare, (r"^language_model\.", "model."))


def qwen3_vl(tensors: Mapping[str, Tensor]) -> Tensors:
    """qwen3vl_4b: the names that Qwen publishes."""
    return named(
        qwen_vl(tensors), (r"^visual\.", "model.visual."), (r"^model\.(?!v)", "model.language_model.")
    )


def gemma(tensors: Mapping[str, Tensor]) -> Tensors:
    return {**named(tensors, (r"^(?!model\.)", "model.")), "spiece_model": TOKENIZER}


def mistral(tensors: Mapping[str, Tensor]) -> Tensors:
    """mistral_3_small_flux2: the text's half in names of its own, the eye's as they were, no head."""
    text = r"^(?:model\.language_model|language_model\.model)\."
    made = named(tensors, (text, "text."), (r"^model\.", ""), (r"^text\.", "model."))
    return {**{key: x for key, x in made.items() if "lm_head" not in key}, "tekken_model": TOKENIZER}


def mistral_cut(tensors: Mapping[str, Tensor]) -> Tensors:
    """The same, ended behind the last layer that is read, without a norm."""
    whole = mistral(tensors)
    depth = 1 + max(int(name.split(".")[2]) for name in whole if name.startswith("model.layers."))
    after = [f"model.layers.{layer}." for layer in range(depth * 3 // 4, depth)]
    return {key: x for key, x in whole.items() if not key.startswith((*after, "model.norm."))}


def clip(tensors: Mapping[str, Tensor]) -> Tensors:
    made = named(tensors, (r"^(?!text_)", "text_model."))
    return {**made, "logit_scale": torch.tensor(4.6)}


def t5(tensors: Mapping[str, Tensor]) -> Tensors:
    return {**tensors, "encoder.embed_tokens.weight": tensors["shared.weight"].clone()}


def plain(tensors: Tensors) -> tuple[Tensors, Tensors]:
    return tensors, tensors


def fp8(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Layers' matrices with a scale and ComfyUI's note of their form beside each, and the numbers meant."""
    note = torch.frombuffer(bytearray(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    stored, meant = dict(tensors), dict(tensors)
    for name, x in tensors.items():
        if x.ndim == 2 and re.search(r"(layers|block|blocks)\.\d+\..*\.weight$", name):
            layer, scale = name.removesuffix(".weight"), torch.tensor(2.0**-6)
            stored[name] = (x.float() / scale).to(torch.float8_e4m3fn)
            stored |= {f"{layer}.weight_scale": scale, f"{layer}.comfy_quant": note.clone()}
            meant[name] = (stored[name].float() * scale).to(x.dtype)
    return stored, meant


WAYS: dict[str, tuple[str, dict[str, Callable[[Mapping[str, Tensor]], Tensors]]]] = {
    "qwen-image": ("qwen-image", {"text_encoder": qwen_vl}),
    "krea-2": ("krea-2", {"text_encoder": qwen3_vl}),
    "krea-2, older names": ("krea-2", {"text_encoder": qwen_vl}),
    "qwen-image-2.1": ("qwen-image-2.1", {"text_encoder": qwen3_vl}),
    "flux3": ("flux3-klein-base", {"text_encoder": qwen3_vl}),
    "lumina-image-2": ("lumina-image-2", {"text_encoder": gemma}),
    "flux2-dev": ("flux2-dev", {"text_encoder": mistral}),
    "flux2-dev, cut": ("flux2-dev", {"text_encoder": mistral_cut}),
    "hunyuan-image-2.1": ("hunyuan-image-2.1", {"text_encoder": qwen_vl, "text_encoder_2": t5}),
    "sd3.5": (
        "sd3.5-medium", {"text_encoder": clip, "text_encoder_2": clip, "text_encoder_3": t5},
    ),
}  # fmt: skip

IN_EIGHT_BITS = ("qwen-image", "lumina-image-2", "flux2-dev, cut", "sd3.5")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("IMAX_MODELS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root, made = tmp_path_factory.mktemp("pipelines"), dict[str, Path]()

    def pipeline(name: str) -> Path:
        if name not in made:
            made[name] = make_tiny(name, root / name)
            if name.startswith("sd3"):
                _widen_second_clip(made[name])
        return made[name]

    return pipeline


def _widen_second_clip(folder: Path) -> None:
    """CLIPs of SD 3.5 are told by their widths, which are the same in the tiny one."""
    from transformers import CLIPTextModelWithProjection

    wide = CLIPTextModelWithProjection(clip_config(clip_tokenizer(), width=48))
    wide.to(torch.bfloat16).save_pretrained(folder / "text_encoder_2")


def text_config(folder: Path, part: str) -> dict[str, Any]:
    """config.json of an encoder; FLUX.2-dev's without its eye."""
    config: dict[str, Any] = json.loads((folder / part / "config.json").read_text())
    if config.get("model_type") == "mistral3":
        return {**config["text_config"], "architectures": ["MistralModel"]}
    return config


def tiny_table(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path) -> None:
    """Make the table of an architecture describe the tiny pipeline."""
    published = single_file.architecture_table

    def table(asked: str) -> Mapping[str, Any]:
        found = published(asked)
        if asked != name:
            return found
        return {**found, "components": {part: text_config(folder, part) for part in found["components"]}}

    monkeypatch.setattr(single_file, "architecture_table", table)


def weights(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def in_files(folder: Path, root: Path, encoders: Mapping[str, Tensors]) -> Path:
    """A YAML file that names transformer and encoders as files, VAE and tokenizers in folders."""
    words = root / "words"
    words.mkdir()
    for each in (*folder.glob("tokenizer*"), *folder.glob("processor")):
        (words / each.name).symlink_to(each)
    for part, tensors in encoders.items():
        save_file(tensors, root / f"{part}.safetensors")
    text = ", ".join([*(str(root / f"{part}.safetensors") for part in encoders), str(words)])
    settings = (folder / "imax.yaml").read_text()
    settings += "vae_factor: 16\n" if "hunyuan" in folder.name else ""
    file = root / "net.yaml"
    (root / "net.safetensors").symlink_to(weights(folder / "transformer"))
    index = (
        json.loads((folder / "model_index.json").read_text())
        if (folder / "model_index.json").is_file()
        else {}
    )
    (words / "model_index.json").write_text(json.dumps(index))
    file.write_text(f"source: net.safetensors\nvae: {folder}\ntext_encoders: [{text}]\n{settings}")
    return file


def states(model: str) -> Tensors:
    return load_model(model, device=CPU, dtype="float32").embed('a red sun with "the sea"')


@pytest.mark.parametrize(
    ("way", "how"), [*((way, plain) for way in WAYS), *((way, fp8) for way in IN_EIGHT_BITS)]
)
def test_a_prompt_is_read_by_files_as_by_the_folder(
    pipelines: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    way: str,
    how: Callable[[Tensors], tuple[Tensors, Tensors]],
) -> None:
    name, parts = WAYS[way]
    folder = pipelines(name)
    tiny_table(monkeypatch, name, folder)
    files, meant = {}, {}
    for part, names in parts.items():
        tensors = load_file(weights(folder / part))
        files[part], meant[part] = how(names(tensors))[0], how(tensors)[1]
    found = states(str(in_files(folder, tmp_path, files)))
    expected_folder = tmp_path / "folder"
    expected_folder.mkdir()
    for each in folder.iterdir():
        (expected_folder / each.name).symlink_to(each)
    for part, tensors in meant.items():
        (expected_folder / part).unlink()
        (expected_folder / part).mkdir()
        (expected_folder / part / "config.json").symlink_to(folder / part / "config.json")
        save_file(tensors, expected_folder / part / "model.safetensors", {"format": "pt"})
    expected = states(str(expected_folder))
    assert set(found) == set(expected)
    for key, x in expected.items():
        assert x.std() > 0
        assert torch.equal(found[key], x), key


SIZES = {
    "byt5-glyph": 219_314_944, "clip-g": 694_659_840, "clip-l": 123_060_480, "clip-l-projected": 123_650_304,
    "gemma-2-2b": 2_614_341_888, "mistral-small": 22_901_314_560, "qwen2.5-vl-7b": 8_292_166_656,
    "qwen3-4b": 4_022_468_096, "qwen3-vl-4b": 4_437_815_808, "qwen3-vl-8b": 8_767_123_696,
    "t5-xxl": 4_762_310_656,
}  # fmt: skip
"""Parameters, as the models' pages on the hub count them; of Mistral Small without its head and its eye."""


@pytest.mark.slow
@pytest.mark.parametrize("name", named_configs("encoders"))
def test_an_encoder_has_its_published_size(name: str) -> None:
    config = encoder_table(name)["config"]
    assert encoder_size(config) == SIZES[name]


def encoder_size(config: Mapping[str, Any]) -> int:
    import transformers

    with torch.device("meta"):
        network = getattr(transformers, config["architectures"][0])(
            transformers.AutoConfig.for_model(**config)
        )
    return sum(x.numel() for x in network.parameters())


def test_a_file_that_is_cut_elsewhere_is_refused_with_a_tensor(
    pipelines: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = pipelines("flux2-dev")
    tiny_table(monkeypatch, "flux2-dev", folder)
    tensors = mistral(load_file(weights(folder / "text_encoder")))
    short = {
        key: x for key, x in tensors.items() if not key.startswith(("model.layers.3.", "model.layers.2."))
    }
    file = in_files(folder, tmp_path, {"text_encoder": short})
    message = (
        r"is not the MistralModel of .*FLUX.2-dev \(text_encoder\): 18 tensors missing, the first is layers.2"
    )
    with pytest.raises(BadValue, match=message):
        find_model(str(file))


def test_a_reader_without_its_eye_is_not_taken_for_one_with_it(
    pipelines: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Qwen3 4B has Qwen3-VL 4B's names and widths, and other weights."""
    folder = pipelines("krea-2")
    tiny_table(monkeypatch, "krea-2", folder)
    tensors = qwen_vl(load_file(weights(folder / "text_encoder")))
    blind = {key: x for key, x in tensors.items() if not key.startswith("visual.")}
    file = in_files(folder, tmp_path, {"text_encoder": blind})
    with pytest.raises(
        BadValue, match=r"is not the Qwen3VLModel of krea/.* tensors missing, the first is visual"
    ):
        find_model(str(file))


def test_a_head_over_words_need_not_be_in_a_file(
    pipelines: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = pipelines("qwen-image")
    tiny_table(monkeypatch, "qwen-image", folder)
    tensors = qwen_vl(load_file(weights(folder / "text_encoder")))
    del tensors["lm_head.weight"]
    found = states(str(in_files(folder, tmp_path, {"text_encoder": tensors})))
    assert torch.equal(found["states"], states(str(folder))["states"])


def test_a_report_names_what_an_encoder_lacks_without_its_memory() -> None:
    config = {**encoder_table("mistral-small")["config"], "num_hidden_layers": 1}
    assert WHOLE_LAYERS not in config
    report = encoder_report(config, {"model.embed_tokens.weight": (131072, 5120), "model.norm.weight": (1,)})[
        1
    ]
    assert len(report["missing_keys"]) == 9
    assert {name for name, *_ in report["mismatched_keys"]} == {"norm.weight"}
