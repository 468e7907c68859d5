"""Positions of Qwen-Image, Z-Image and FLUX.2: diffusers' own tables, beyond their ends, and text copies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from imax_dist.geometry import TokenGrid
from imax_dist.method.rope import base_frequencies, rope_table
from imax_dist.method.text_duplication import TextCopies
from imax_dist.models.joint_attention import _rotated_by_parts, rotate_pairs
from imax_dist.models.networks.flux2 import joint_position_ids as flux2_ids
from imax_dist.models.networks.qwen_image import joint_position_ids as qwen_ids
from imax_dist.models.networks.z_image import joint_position_ids as z_image_ids
from imax_dist.shapes import RopeTable

ORIGIN = TextCopies(((0, 0),))
GRID = TokenGrid(height=5, width=8)
AXES = (4, 6, 6)


def complex_table(ids: Tensor, theta: float) -> Tensor:
    """Our table as diffusers' complex numbers, one a pair of channels."""
    table = rope_table(ids, [base_frequencies(dim, theta) for dim in AXES])
    return torch.complex(table.cos[:, ::2], table.sin[:, ::2])


def test_qwen_image_centres_the_image_and_puts_the_prompt_beyond_its_corner() -> None:
    from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope

    image, text = QwenEmbedRope(10_000, list(AXES), scale_rope=True)([(1, 5, 8)], max_txt_seq_len=3)
    ours = complex_table(qwen_ids(GRID, ORIGIN, text_tokens=3), 10_000.0)
    assert (ours - torch.cat([text, image])).abs().max() < 1e-6


def test_z_image_puts_the_image_after_the_padded_prompt_and_padding_at_zero() -> None:
    from diffusers.models.transformers.transformer_z_image import RopeEmbedder

    ids = z_image_ids(GRID, ORIGIN, text_tokens=32)
    theirs = RopeEmbedder(256.0, list(AXES), [64, 16, 16])(ids.to(torch.int64))
    assert (complex_table(ids, 256.0) - theirs).abs().max() < 1e-6
    assert len(ids) == 32 + 64  # 40 image tokens and 24 of padding
    assert torch.equal(ids[31:33], torch.tensor([[32.0, 0.0, 0.0], [33.0, 0.0, 0.0]], dtype=torch.float64))
    assert not ids[-24:].any()


def test_z_images_positions_go_on_where_diffusers_table_ends() -> None:
    from diffusers.models.transformers.transformer_z_image import RopeEmbedder

    far = z_image_ids(TokenGrid(height=513, width=1), ORIGIN, text_tokens=32)
    with pytest.raises(IndexError):
        RopeEmbedder(256.0, list(AXES), [1024, 512, 512])(far.to(torch.int64))
    row = complex_table(far, 256.0)[32 + 512, 2:5]
    assert torch.allclose(row, torch.exp(1j * 512.0 * base_frequencies(6, 256.0)))


def test_qwen_images_positions_go_on_where_diffusers_table_ends() -> None:
    """Its table has 4096 positions on each side of the centre, and is cut there without a word."""
    ids = qwen_ids(TokenGrid(height=8194, width=1), ORIGIN, text_tokens=2)
    assert ids[:2, 1].tolist() == [4097.0, 4098.0]
    assert (ids[2, 1], ids[-1, 1]) == (-4097.0, 4096.0)


def test_flux2_has_its_place_in_the_prompt_on_an_axis_of_its_own() -> None:
    ids = flux2_ids(TokenGrid(height=2, width=2), TextCopies(((0, 0), (0, 4))), text_tokens=2)
    assert ids.tolist() == [
        [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 4, 0], [0, 0, 4, 1],
        [0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 1, 1, 0],
    ]  # fmt: skip


def test_a_copy_of_qwen_images_prompt_stands_to_its_cell_as_the_prompt_to_its_image() -> None:
    native, copies = TokenGrid(4, 6), TextCopies(((0, 0), (0, 6), (4, 0), (4, 6)))
    trained = qwen_ids(native, ORIGIN, text_tokens=3)
    large = qwen_ids(TokenGrid(8, 12), copies, text_tokens=3)
    texts, image = large[:12].reshape(4, 3, 3), large[12:].reshape(8, 12, 3)
    for text, (row, column) in zip(texts, copies.offsets, strict=True):
        cell = image[row : row + 4, column : column + 6].reshape(-1, 3)
        assert torch.equal(cell - text[0], trained[3:] - trained[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_rotation_as_complex_numbers_has_the_bits_of_the_parts(
    dtype: torch.dtype, rng: torch.Generator
) -> None:
    """Lengths that no vector register divides, a table with an attention factor, heads cut from a product."""
    ids = torch.randint(0, 300, (37, 3), generator=rng).double()
    table = rope_table(ids, [base_frequencies(dim, 10_000.0) for dim in AXES])
    precision = torch.promote_types(dtype, torch.float32)
    table = RopeTable(*(1.3 * part.to(precision) for part in table))
    x = torch.randn(1, 37, 3 * 5 * 16, generator=rng).to(dtype).chunk(3, dim=-1)[1].unflatten(-1, (5, 16))
    assert torch.equal(rotate_pairs(x, table), _rotated_by_parts(x, table))
