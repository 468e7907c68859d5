"""RRDBNet: the network of ESRGAN (arXiv 1809.00219) and Real-ESRGAN (arXiv 2107.10833), x1, x2, x4 and x8.

Files name its parts in two ways, that of BasicSR (``conv_first``) and that of the first ESRGAN models
(``model.0``). The trunk works at the picture's size and sees far; the tail doubles the size a few times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

SHARE = 0.2
"""Of a block's result that is added to what it was given."""
DENSE = 5
"""Convolutions of a dense block."""
DENSE_BLOCKS = 3
SLOPE = 0.2
AROUND_BLOCKS = 3
"""Maps of the trunk's width beside those of a dense block: what goes around it, its block and the trunk."""
OLD_NAMES = (
    (r"model\.0\.", "conv_first."),
    (r"model\.1\.sub\.(\d+)\.(weight|bias)$", r"conv_body.\2"),
    (r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.", r"body.\1.rdb\2.conv\3."),
    (r"RRDB_trunk\.(\d+)\.RDB(\d)\.conv(\d)\.", r"body.\1.rdb\2.conv\3."),
    (r"trunk_conv\.", "conv_body."),
    (r"upconv(\d)\.", r"conv_up\1."),
    (r"HRconv\.", "conv_hr."),
)


class DenseBlock(nn.Module):
    """Five convolutions, each of all that came before it; (B, width, H, W) to the same."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for number in range(DENSE):
            made = growth if number < DENSE - 1 else width
            self.add_module(f"conv{number + 1}", nn.Conv2d(width + number * growth, made, 3, padding=1))
        self.width, self.growth = width, growth

    def forward(self, x: Tensor) -> Tensor:
        made = x.new_empty((len(x), self.width + (DENSE - 1) * self.growth, *x.shape[2:]))
        made[:, : self.width] = x
        for number in range(DENSE - 1):
            known = self.width + number * self.growth
            conv = self.get_submodule(f"conv{number + 1}")
            made[:, known : known + self.growth] = F.leaky_relu(conv(made[:, :known]), SLOPE)
        return x + SHARE * self.get_submodule(f"conv{DENSE}")(made)  # type: ignore[no-any-return]


class Rrdb(nn.Module):
    """Three dense blocks and a way around them; (B, width, H, W) to the same."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for number in range(DENSE_BLOCKS):
            self.add_module(f"rdb{number + 1}", DenseBlock(width, growth))

    def forward(self, x: Tensor) -> Tensor:
        inside = x
        for block in self.children():
            inside = block(inside)
        return x + SHARE * inside


class RrdbNet(nn.Module):
    """(B, 3, h, w) in [0, 1] to (B, 3, scale h, scale w)."""

    def __init__(self, *, blocks: int, width: int, growth: int, doublings: int, shrink: int = 1) -> None:
        """``shrink``: first the picture's pixels become channels, a side divided by it (x2: 2, x1: 4)."""
        super().__init__()
        self.conv_first = nn.Conv2d(3 * shrink**2, width, 3, padding=1)
        self.body = nn.ModuleList(Rrdb(width, growth) for _ in range(blocks))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        self.doublings = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(doublings))
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, 3, 3, padding=1)
        self.shrink = shrink

    @property
    def scale(self) -> int:
        return int(2 ** len(self.doublings)) // self.shrink

    @property
    def trunk_reach(self) -> int:
        """Rows of its input, before shrinking, that a row of the trunk's result sees beyond itself."""
        return self.shrink * (2 + DENSE * DENSE_BLOCKS * len(self.body))

    @property
    def flops(self) -> float:
        """Of one pixel of its input."""
        doubled = [(conv, 4.0**number) for number, conv in enumerate(self.doublings, start=1)]
        inside = [(part, 1.0) for part in (self.conv_first, self.body, self.conv_body)]
        last = [(conv, 4.0 ** len(self.doublings)) for conv in (self.conv_hr, self.conv_last)]
        weights = [
            (area, sum(w.numel() for w in part.parameters())) for part, area in inside + doubled + last
        ]
        return sum(2.0 * area * count for area, count in weights) / self.shrink**2

    @property
    def held(self) -> int:
        """Numbers that the trunk holds at its peak for one pixel of its input, about."""
        width = self.conv_first.out_channels
        growth = self.body[0].get_submodule("rdb1").get_submodule("conv1").out_channels  # type: ignore[union-attr]
        return int((AROUND_BLOCKS + 1) * width + (DENSE - 1) * int(growth)) // self.shrink**2  # type: ignore[arg-type]

    def trunk(self, x: Tensor, each: Callable[[], None]) -> Tensor:
        """Features (B, width, h / shrink, w / shrink) of a picture (B, 3, h, w).

        ``each`` is called after every block and may raise.
        """
        first = self.conv_first(F.pixel_unshuffle(x, self.shrink))
        features = first
        for block in self.body:
            features = block(features)
            each()
        return first + self.conv_body(features)  # type: ignore[no-any-return]

    def tail(self, features: Tensor) -> Tensor:
        """The enlarged picture (B, 3, scale h, scale w) of features."""
        for conv in self.doublings:
            doubled = F.interpolate(features, scale_factor=2, mode="nearest")
            features = F.leaky_relu(conv(doubled), SLOPE)
        return self.conv_last(F.leaky_relu(self.conv_hr(features), SLOPE))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.trunk(x, lambda: None))


def named(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``weights`` under the names of RrdbNet, whichever of the ways they are named in."""
    found = {re.sub(r"^(params_ema|params)\.", "", name): tensor for name, tensor in weights.items()}
    later = sorted({int(m[1]) for name in found if (m := re.match(r"model\.([2-9]|\d\d)\.weight", name))})
    parts = [f"conv_up{n + 1}" for n in range(len(later) - 2)] + ["conv_hr", "conv_last"]
    places = {f"model.{number}.": f"{part}." for number, part in zip(later, parts, strict=False)}
    renamed = {}
    for name, tensor in found.items():
        for old, new in places.items():
            name = new + name.removeprefix(old) if name.startswith(old) else name
        for pattern, new in OLD_NAMES:
            name = re.sub(rf"^{pattern}", new, name)
        name = re.sub(r"^conv_up(\d)", lambda m: f"doublings.{int(m[1]) - 1}", name)
        renamed[name] = tensor
    return renamed


def rrdb_net(weights: Mapping[str, Tensor]) -> RrdbNet | None:
    """The network of these weights; None if they are not an RRDBNet's that takes and gives RGB."""
    found = named(weights)
    first, last = found.get("conv_first.weight"), found.get("conv_last.weight")
    growth = found.get("body.0.rdb1.conv1.weight")
    if first is None or last is None or growth is None or len(last) != 3:
        return None
    shrink = {3 * side**2: side for side in (1, 2, 4)}.get(first.shape[1])
    if shrink is None:
        return None
    with torch.device("meta"):
        network = RrdbNet(
            blocks=len({name.split(".")[1] for name in found if name.startswith("body.")}),
            width=first.shape[0],
            growth=growth.shape[0],
            doublings=len({name.split(".")[1] for name in found if name.startswith("doublings.")}),
            shrink=shrink,
        )
    try:
        network.load_state_dict(found, assign=True)
    except RuntimeError:
        return None
    return network.eval().requires_grad_(False)
