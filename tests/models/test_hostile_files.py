"""GGUF files and chat templates from anywhere: a model, or one sentence."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fuzzing import damaged
from safetensors.torch import load_file
from tiny_flux import make_tiny_flux

from imax_dist.errors import BadManifest, BadValue, ImaxError
from imax_dist.models.blueprint import stored_parameters
from imax_dist.models.catalogue import faults
from imax_dist.models.files.stored import beside
from imax_dist.models.load import Loading, describe_model, load
from imax_dist.models.quantised import load_transformer
from imax_dist.models.tiny import make_tiny
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.plan import make_plan
from imax_dist.pipeline.prompt import embed_prompt
from imax_dist.pipeline.request import Request

MUTATIONS = 40
LONGEST_SENTENCE = 1_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny FLUX whose transformer is a GGUF file, ``small.gguf``, of plain floats."""
    gguf = pytest.importorskip("gguf")
    made = make_tiny_flux(tmp_path_factory.mktemp("gguf") / "model")
    writer = gguf.GGUFWriter(str(made / "small.gguf"), "flux")
    for name, tensor in load_file(next((made / "transformer").glob("*.safetensors"))).items():
        writer.add_tensor(name, tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    settings = yaml.safe_load((made / "imax.yaml").read_text()) if (made / "imax.yaml").is_file() else {}
    (made / "imax.yaml").write_text(yaml.safe_dump({**settings, "quantize": str(made / "small.gguf")}))
    return made


def transformer(folder: Path) -> Any:
    from diffusers import FluxTransformer2DModel

    return load_transformer(FluxTransformer2DModel, describe_model(str(folder)), folder, dtype=torch.float32)


def hostile(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Counts, lengths and types that no file has, and random damage."""
    magic, version = content[:4], content[4:8]
    huge = struct.pack("<Q", 1 << 62)
    yield "no magic", b"GGUX" + content[4:]
    yield "a version to come", magic + struct.pack("<I", 99) + content[8:]
    yield "2^62 tensors", magic + version + huge + content[16:]
    yield "2^62 keys", magic + version + content[8:16] + huge + content[24:]
    yield "a key of 2^62 letters", content[:24] + huge + content[32:]
    yield "nothing but a header", content[:24]
    yield "cut in the middle", content[: len(content) // 2]
    yield "empty tensors", content[: len(content) - 64]
    for number in range(MUTATIONS):
        yield f"mutation {number}", damaged(content, random.Random(number))


def test_a_hostile_gguf_is_read_or_one_sentence(folder: Path) -> None:
    file = folder / "small.gguf"
    content = file.read_bytes()
    assert transformer(folder) is not None
    refused = 0
    for name, changed in hostile(content):
        file.write_bytes(changed or b"-")
        try:
            transformer(folder)
        except ImaxError as error:
            refused += len(str(error)) < LONGEST_SENTENCE
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
    file.write_bytes(content)
    assert refused > 8


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for x in range(10 ** 9) %}{% endfor %}",
        "{{ messages[0].nothing.there }}",
        "{% if %}",
        "{{ raise_exception('no') }}",
    ],
)
def test_a_hostile_chat_template_is_one_sentence(tmp_path: Path, template: str) -> None:
    """transformers renders it in a sandbox, in which ranges are short and attributes of Python's are none."""
    made = make_tiny("z-image-turbo", tmp_path / "model")
    for file in (made / "tokenizer").glob("*.jinja"):
        file.write_text(template)
    config = made / "tokenizer" / "tokenizer_config.json"
    words = json.loads(config.read_text())
    if "chat_template" in words:
        config.write_text(json.dumps({**words, "chat_template": template}))
    cpu = torch.device("cpu")
    model = load(str(made), Loading(cpu, cpu, "float32"))
    plan = make_plan(Request("a red sun", model=str(made)), model.spec)
    with pytest.raises(BadManifest, match="the chat template of its tokenizer fails: "):
        embed_prompt(plan, model, Topology.alone(cpu))


@pytest.mark.parametrize(
    "config", ["transformer/config.json", "text_encoder/config.json", "tokenizer/tokenizer_config.json"]
)
def test_a_part_that_asks_for_its_own_code_is_refused_by_name(tmp_path: Path, config: str) -> None:
    made = make_tiny("flux-schnell", tmp_path / "model")
    file = made / config
    asks = {"auto_map": {"AutoModel": "evil.Net", "AutoTokenizer": ["evil.Words", None]}}
    file.write_text(json.dumps({**json.loads(file.read_text()), **asks}))
    with pytest.raises(BadValue, match=rf"{config} names code to run \(auto_map\), which is never run"):
        describe_model(str(made))


def test_an_index_with_a_library_of_its_own_is_refused_by_name(tmp_path: Path) -> None:
    made = make_tiny("flux-schnell", tmp_path / "model")
    index = made / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "text_encoder": ["evil", "Net"]}))
    with pytest.raises(BadValue, match=r"takes text_encoder from 'evil', whose code is never run"):
        describe_model(str(made))


ENDLESS = "[" * 100_000


def test_json_that_is_nested_without_end_is_one_sentence(tmp_path: Path) -> None:
    made = make_tiny_flux(tmp_path / "model")
    weights = next((made / "transformer").glob("*.safetensors"))
    (tmp_path / "config.json").write_text(ENDLESS)
    with pytest.raises(BadValue, match=r"config.json, beside model a.safetensors, is not readable JSON"):
        beside(tmp_path / "a.safetensors", "_class_name")
    index = made / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(ENDLESS)
    assert [fault for fault in faults(made) if "is not a readable index" in fault]
    weights.write_bytes(struct.pack("<Q", len(ENDLESS)) + ENDLESS.encode())
    with pytest.raises(BadValue, match=r"is not a readable .safetensors file"):
        stored_parameters(made / "transformer")
