"""The text encoders visit rank 0's GPU for the prompt where it is crowded, and their weights stay at home."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from imax_dist.models.conditioning import Conditioning
from imax_dist.models.text_encoder import TextEncoder, encoders_away
from imax_dist.parallel.topology import Topology
from imax_dist.pipeline.prompt import crowded, embed_prompt


class Network(torch.nn.Linear):
    """Remembers where it was moved; a move to a GPU copies the weights, as a real one does."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(2, 2)
        self.said = said

    def to(self, device: torch.device) -> Any:
        self.said.append(device.type)
        if device.type == "cuda":
            for parameter in self.parameters():
                parameter.data = parameter.data.clone()
        return self


def model(said: list[str], encoders: Any, *, fails: bool = False) -> Any:
    def encode_prompt(prompt: str, *, negative: bool, picture: object) -> Conditioning:
        del picture
        said.append(prompt)
        if fails:
            raise RuntimeError("out of memory")
        return Conditioning({"states": torch.zeros(1, 2, 3)}, None)

    return SimpleNamespace(encoders=encoders, device=torch.device("cuda"), encode_prompt=encode_prompt)


def plan() -> Any:
    one = SimpleNamespace(guidance_scale=1.0)
    request = SimpleNamespace(prompt="a red sun")
    return SimpleNamespace(native=one, passes=(), spec=SimpleNamespace(guidance="distilled"), request=request)


def places(network: Network) -> list[int]:
    return [parameter.data_ptr() for parameter in network.parameters()]


def test_encoders_are_on_the_device_for_the_prompt_and_leave_it_afterwards() -> None:
    said: list[str] = []
    two = (TextEncoder(None, Network(said)), TextEncoder(None, Network(said)))
    embed_prompt(plan(), model(said, two), Topology.alone(), visit=True)
    assert said == ["cuda", "cuda", "a red sun", "cpu", "cpu"]


@pytest.mark.parametrize("fails", [False, True])
def test_weights_that_were_in_the_hosts_memory_are_not_copied_back(fails: bool) -> None:
    said: list[str] = []
    network = Network(said)
    before, values = places(network), network.weight.clone()
    visiting = model(said, TextEncoder(None, network), fails=fails)
    try:
        embed_prompt(plan(), visiting, Topology.alone(), visit=True)
    except RuntimeError:
        assert fails
    assert places(network) == before
    assert torch.equal(network.weight, values)
    assert said[-1] == "cpu"


def test_they_stay_where_they_are_unless_they_shall_visit() -> None:
    said: list[str] = []
    embed_prompt(plan(), model(said, TextEncoder(None, Network(said))), Topology.alone())
    assert said == ["a red sun"]
    embed_prompt(plan(), model(said, None), Topology.alone(), visit=True)
    assert said == ["a red sun", "a red sun"]


def test_encoders_in_other_memory_than_the_transformer_are_away() -> None:
    encoders = TextEncoder(None, Network([]))
    assert [encoders_away(encoders, torch.device(kind)) for kind in ("cpu", "cuda")] == [False, True]


@pytest.mark.parametrize(("weights", "expected"), [(34, False), (41, True)])
def test_a_gpu_is_crowded_when_weights_take_more_than_half(
    weights: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    properties = SimpleNamespace(total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: weights << 30)
    assert crowded(torch.device("cuda", 0)) == expected
    assert not crowded(torch.device("cpu"))
