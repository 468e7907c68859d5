"""The cost formulas against diffusers' own networks: parameters, FLOPs, element-wise bytes, activations."""

from __future__ import annotations

import pytest
import torch
from planner.counting import Counter
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from imax_dist.errors import BadValue, MissingInput
from imax_dist.models.blueprint import find_blueprint, stored_parameters
from imax_dist.models.find import EMBEDDED
from imax_dist.models.joint_attention import JointProcessor, TableAsIds
from imax_dist.parallel.engines.torch import TorchEngine
from imax_dist.parallel.mesh import single_rank
from imax_dist.parallel.sequence import JointLayout
from imax_dist.planner.encoders import encoder_parameters
from imax_dist.planner.transformer import TRANSFORMERS, flux, transformer_of
from imax_dist.planner.vae import attention_flops
from imax_dist.vae.networks import describe

CONFIG = dict(
    in_channels=64, num_layers=2, num_single_layers=3, attention_head_dim=64, num_attention_heads=6,
    joint_attention_dim=96, pooled_projection_dim=48, axes_dims_rope=(16, 24, 24), guidance_embeds=True,
)  # fmt: skip


def network(config: dict, dtype: torch.dtype):
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(**config)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.pos_embed = TableAsIds()
    model.set_attn_processor(JointProcessor())
    return model


def run(config: dict, dtype: torch.dtype, *, image: int, text: int, mode) -> None:
    """One pass on one rank under ``mode``, inputs made before it begins."""
    head_dim = config["attention_head_dim"]
    model = network(config, dtype)
    table = torch.rand(text + image, 2 * head_dim)
    inputs = dict(
        hidden_states=torch.rand(1, image, config["in_channels"]).to(dtype),
        timestep=torch.ones(1).to(dtype),
        guidance=torch.ones(1).to(dtype) if config["guidance_embeds"] else None,
        encoder_hidden_states=torch.rand(1, text, config["joint_attention_dim"]).to(dtype),
        pooled_projections=torch.rand(1, config["pooled_projection_dim"]).to(dtype),
        txt_ids=table[:text],
        img_ids=table[text:],
        joint_attention_kwargs={
            "engine": TorchEngine(single_rank()),
            "layout": JointLayout.of(text_tokens=text, image_tokens=image, ranks=1),
            "text_weight": 1,
        },
        return_dict=False,
    )
    with torch.no_grad(), mode:
        model(**inputs)


@pytest.mark.parametrize("guided", [True, False])
def test_parameters_are_those_of_diffusers_flux(guided: bool) -> None:
    from diffusers import FluxTransformer2DModel

    config = {**CONFIG, "guidance_embeds": guided, "num_single_layers": 1, "out_channels": 32}
    with torch.device("meta"):
        model = FluxTransformer2DModel(**config)
    assert flux(config).parameters == sum(p.numel() for p in model.parameters())


def test_flux1_has_the_size_its_card_says() -> None:
    shape = flux(find_blueprint("flux-dev").configs["transformer"])
    assert shape.parameters == 11_901_408_320
    assert (shape.blocks, shape.heads, shape.width) == (57, 24, 3072)


@pytest.mark.parametrize(("image", "text"), [(64, 7), (225, 33)])
def test_flops_are_those_torch_counts(image: int, text: int) -> None:
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH):  # the counter does not know the CPU's fused kernel
        run(CONFIG, torch.float32, image=image, text=text, mode=counter)
    shape = flux(CONFIG)
    formula = shape.linear_flops(image, text) + shape.attention_flops(image + text, image + text)
    assert counter.get_total_flops() == pytest.approx(formula, rel=1e-9)


def test_a_step_of_flux1_at_4096_px_takes_the_published_flops() -> None:
    shape = flux(find_blueprint("flux-dev").configs["transformer"])
    tokens = 65_536 + 512
    flops = shape.linear_flops(65_536, 512) + shape.attention_flops(tokens, tokens)
    assert flops == pytest.approx(3_908e12, rel=0.001)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_element_wise_bytes_and_activations_are_those_counted(dtype: str) -> None:
    image, text = 900, 60
    counter = Counter()
    run(CONFIG, getattr(torch, dtype), image=image, text=text, mode=counter)
    shape, tokens = flux(CONFIG), image + text
    assert counter.moved == pytest.approx(
        shape.traffic[dtype] * tokens * shape.blocks * shape.width, rel=0.15
    )
    assert counter.peak == pytest.approx(shape.held[dtype] * tokens * shape.width, rel=0.2)


@pytest.mark.parametrize("attends", [True, False])
def test_the_autoencoders_parameters_and_flops_are_those_of_diffusers(attends: bool) -> None:
    from diffusers import AutoencoderKL

    config = dict(
        in_channels=3, out_channels=3, block_out_channels=(16, 32, 48), layers_per_block=2, latent_channels=4,
        norm_num_groups=8, mid_block_add_attention=attends,
        use_quant_conv=attends, use_post_quant_conv=attends,
    )  # fmt: skip
    kinds = dict(down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3)
    vae, network = AutoencoderKL(**config, **kinds), describe(config)
    assert network is not None
    assert network.parameter_count == sum(p.numel() for p in vae.parameters())
    for half, inputs in (("decoder", torch.rand(1, 4, 6, 8)), ("encoder", torch.rand(1, 3, 24, 32))):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            vae.decode(inputs) if half == "decoder" else vae.encode(inputs)
        placed = network.placed(half)
        formula = sum(2.0 * c.kernel**2 * c.inputs * c.outputs * 48 * scale**2 for c, scale, _ in placed)
        formula += attends * attention_flops(network.attention_width, 48)
        assert counter.get_total_flops() == pytest.approx(formula, rel=0.03)  # the down-sampler pads


def test_the_formulas_agree_with_the_headers_of_the_files_on_disk() -> None:
    blueprint = find_blueprint("embedded")
    assert blueprint.stored["transformer"] == flux(blueprint.configs["transformer"]).parameters
    assert blueprint.stored["vae"] == describe(blueprint.configs["vae"]).parameter_count
    for part in ("text_encoder", "text_encoder_2"):
        assert blueprint.stored[part] == encoder_parameters(blueprint.configs[part])
    assert stored_parameters(EMBEDDED / "vae") == blueprint.stored["vae"]


def test_text_encoders_of_flux1_have_their_known_sizes() -> None:
    configs = find_blueprint("black-forest-labs/FLUX.1-dev").configs
    assert encoder_parameters(configs["text_encoder"]) == 123_060_480
    assert encoder_parameters(configs["text_encoder_2"]) == pytest.approx(4.76e9, rel=0.001)


def test_a_model_that_is_nowhere_is_refused_without_asking_the_hub() -> None:
    with pytest.raises(MissingInput, match=r"someone/unheard-of is not on this disk.*FLUX\.1-dev"):
        find_blueprint("someone/unheard-of")


def test_an_unknown_network_is_taken_for_one_stream_or_refused() -> None:
    config = {"_class_name": "SomeTransformer2DModel", "num_layers": 4}
    known = dict(heads=8, kv_heads=2, head_dim=16)
    assert transformer_of(config, stored=1_000, **known).image_flops == 2_000
    with pytest.raises(BadValue, match="the cost of a SomeTransformer2DModel is not known"):
        transformer_of(config, stored=None, **known)
    with pytest.raises(BadValue, match="the size of a BertModel is not known"):
        encoder_parameters({"architectures": ["BertModel"]})
    assert "FluxTransformer2DModel" in TRANSFORMERS


def test_skipped_steps_cost_nothing() -> None:
    """Of 24 steps, strong asks the network at 14."""
    from imax_dist.models.blueprint import find_blueprint
    from imax_dist.pipeline.request import Request
    from imax_dist.planner.workload import workload_of

    asked = {}
    for tier in ("none", "strong"):
        request = Request("a", preset="one_jump", method={"cache": tier}, steps=24)
        work = workload_of(request, find_blueprint("embedded"), device="cpu")
        asked[tier] = sum(part.steps for part in work.extrapolated)
    assert asked == {"none": 24, "strong": 14}
