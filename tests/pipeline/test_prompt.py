"""The text encoders leave rank 0's GPU once the prompt is embedded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from imax_dist.models.base import FlowModel
from imax_dist.models.conditioning import Conditioning
from imax_dist.models.text_encoder import TextEncoder
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.prompt import embed_prompt


class Network:
    """Remembers where it was moved."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    def to(self, device: torch.device) -> None:
        self.said.append(device.type)


def model(said: list[str], encoders: Any) -> Any:
    def encode_prompt(prompt: str, *, negative: bool) -> Conditioning:
        said.append(prompt)
        return Conditioning({"states": torch.zeros(1, 2, 3)}, None)

    made = SimpleNamespace(encoders=encoders, device=torch.device("cuda"), encode_prompt=encode_prompt)
    made.place_encoders = lambda device: FlowModel.place_encoders(made, device)  # type: ignore[arg-type]
    return made


def plan() -> Any:
    one = SimpleNamespace(guidance_scale=1.0)
    request = SimpleNamespace(prompt="a red sun")
    return SimpleNamespace(native=one, passes=(), spec=SimpleNamespace(guidance="distilled"), request=request)


def test_encoders_are_on_the_device_for_the_prompt_and_leave_it_afterwards() -> None:
    said: list[str] = []
    two = (TextEncoder(None, Network(said)), TextEncoder(None, Network(said)))
    embed_prompt(plan(), model(said, two), Topology.alone(), leave=True)
    assert said == ["cuda", "cuda", "a red sun", "cpu", "cpu"]


def test_they_stay_where_they_are_unless_they_shall_leave() -> None:
    said: list[str] = []
    embed_prompt(plan(), model(said, TextEncoder(None, Network(said))), Topology.alone())
    assert said == ["a red sun"]
    model(said, None).place_encoders(torch.device("cpu"))
    assert said == ["a red sun"]
