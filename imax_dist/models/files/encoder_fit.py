"""Whether a text encoder's tensors are those of its config.json, told by their shapes alone.

transformers itself loads tensors without memory and reports: it knows the older names of its networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from imax_dist.errors import BadConfig, BadValue
from imax_dist.models.files.conversion import Fit
from imax_dist.models.files.encoder_files import Found, network_names, unread
from imax_dist.models.files.stored import refuse_unread, shapes

ENCODERS = {"output_loading_info": True, "ignore_mismatched_sizes": True}
"""For transformers' networks, which then say in their report what does not fit instead of raising."""


def encoder_report(
    config: Mapping[str, Any], shape_of: Mapping[str, tuple[int, ...]]
) -> tuple[Any, dict[str, Any]]:
    """A text encoder loaded with tensors of these shapes and no memory, and what transformers says of it.

    Raises BadConfig for a class that it does not have.
    """
    import transformers

    name = str((config.get("architectures") or ["?"])[0])
    kind = getattr(transformers, name, None)
    if kind is None:
        raise BadConfig(f"a text encoder is a {name} by its config.json, which transformers does not have")
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shape_of.items()}
    loaded: tuple[Any, dict[str, Any]] = kind.from_pretrained(
        None,
        config=transformers.AutoConfig.for_model(**config),
        state_dict=network_names(tensors, config),
        device_map="meta",
        **ENCODERS,
    )
    return loaded


def refuse_other_encoder(file: Path, found: Found, *, what: str) -> None:
    """Raise BadValue for an encoder in a file that is not ``what``, or of a form that is not read."""
    refuse_unread(file, found.prefix)
    report = encoder_report(found.config, shapes(file, found.prefix))[1]
    wrong = [
        f"{name} is {tuple(there)} in the file and {tuple(wanted)} in the network"
        for name, there, wanted in sorted(report["mismatched_keys"])
    ]
    missing = sorted(report["missing_keys"] - unread(found.config))
    if missing or wrong:
        how = Fit(missing=tuple(missing), wrong=tuple(wrong)).sentence()
        raise BadValue(f"text encoder {file} is not the {found.config['architectures'][0]} of {what}: {how}")
