"""How tiny networks are guided, what they do without, and the scales that a test of all may ask for."""

from __future__ import annotations

from typing import Any

AS_INPUT = ("flux-dev", "flux2-dev", "hunyuan-image-2.1-distilled", "flux-kontext", "flux-fill")
"""They take their guidance as an input: there is no second prompt."""
TRAINED_IN = ("flux3-klein",)
"""They take none, and a scale is refused."""
UNPADDED = (
    "chroma", "hunyuan-image-2.1", "krea-2", "lumina-image-2", "qwen-image", "qwen-image-2.1",
    "qwen-image-edit", "qwen-image-edit-2511", "z-image-turbo",
)  # fmt: skip
"""Their prompts have lengths of their own and the networks take no mask: no batches of two."""
WITHOUT_LORA = ("lumina-next",)
"""diffusers has no loader, for the pipeline or for its network."""


def scales(name: str, *, native: float, extrapolated: float) -> dict[str, Any]:
    """Switches of a request, by the name of its tiny network."""
    if name in TRAINED_IN:
        return {}
    return {"guidance_scale": {"native": native, "extrapolated": extrapolated}}
