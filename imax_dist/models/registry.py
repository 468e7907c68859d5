"""Every supported diffusers pipeline class, and the network that is in it."""

from __future__ import annotations

from pathlib import Path

from imax_dist.errors import BadValue
from imax_dist.models.architecture import Architecture
from imax_dist.models.networks import (
    chroma,
    flux,
    flux2,
    flux3,
    flux_editors,
    hunyuan_image,
    krea2,
    lumina,
    lumina2,
    qwen_image,
    qwen_image21,
    qwen_image_edit,
    sd3,
    z_image,
)
from imax_dist.models.weights import pipeline_class

ARCHITECTURES: dict[str, Architecture] = {
    "FluxPipeline": flux.ARCHITECTURE,
    "FluxKontextPipeline": flux_editors.KONTEXT,
    "FluxFillPipeline": flux_editors.FILL,
    "LuminaPipeline": lumina.ARCHITECTURE,
    "Lumina2Pipeline": lumina2.ARCHITECTURE,
    "Flux2Pipeline": flux2.ARCHITECTURE,
    "Flux2KleinPipeline": flux2.ARCHITECTURE,
    "ChromaPipeline": chroma.ARCHITECTURE,
    "HunyuanImagePipeline": hunyuan_image.ARCHITECTURE,
    "Krea2Pipeline": krea2.ARCHITECTURE,
    "Flux3ModularPipeline": flux3.ARCHITECTURE,
    "Flux3DistilledModularPipeline": flux3.ARCHITECTURE,
    "QwenImagePipeline": qwen_image.ARCHITECTURE,
    "QwenImage21Pipeline": qwen_image21.ARCHITECTURE,
    "QwenImageEditPipeline": qwen_image_edit.EDIT,
    "QwenImageEditPlusPipeline": qwen_image_edit.EDIT_PLUS,
    "StableDiffusion3Pipeline": sd3.ARCHITECTURE,
    "ZImagePipeline": z_image.ARCHITECTURE,
}
"""One entry a diffusers pipeline class."""
WITHOUT_ROPE = ("PixArtSigmaPipeline", "PixArtAlphaPipeline", "SanaPipeline")


def architecture_of(name: str, folder: Path) -> Architecture:
    """The entry of the folder's pipeline class. Raises BadValue for a class without one."""
    kind = pipeline_class(folder)
    if kind in ARCHITECTURES:
        return ARCHITECTURES[kind]
    if kind in WITHOUT_ROPE:
        raise BadValue(
            f"model {name} is a {kind}: its transformer has no rotary positions, which the method scales; "
            f"supported: {', '.join(ARCHITECTURES)}"
        )
    raise BadValue(f"model {name} is a {kind}; supported: {', '.join(ARCHITECTURES)}")
