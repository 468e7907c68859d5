"""``configs/studies/*.yaml``: a study is its variants, sizes and number of scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from imax_dist.config import load_named, load_yaml, named_configs, set_key
from imax_dist.errors import BadConfig
from imax_dist.settings_mapping import from_mapping

Kind = Literal["pictures", "velocity_loss"]
Guide = Literal["native", "truth"]
SMALL_SCENES = 2
SMALL_SCALE = "2"


@dataclass(frozen=True)
class Variant:
    """One way to draw a scene; what is None is the study's or the model's own."""

    preset: str = ""
    """None: the study's."""
    set: tuple[str, ...] = ()
    """Switches as on the command line: ``rope.rule=none``."""
    steps: int | None = None
    native_steps: int | None = None
    model: str | None = None
    enlarge: str | None = None
    """No second pass: the native picture, enlarged by ``lanczos`` or by a spandrel ``.safetensors``; or
    ``autoencoder``: the true render through the autoencoder, the ceiling of every method; or ``truth``: the
    true render itself, what each measure says of a perfect picture."""
    at: float | None = None
    """Where the variant stands on the x axis of a line plot."""

    @property
    def is_true(self) -> bool:
        """Whether it is made from the true render: a ceiling, no way to make a poster."""
        return self.enlarge in ("autoencoder", "truth")

    def method(self) -> dict[str, Any]:
        """``set`` as the nested mapping of a request. Raises BadConfig for a malformed one."""
        mapping: dict[str, Any] = {}
        for assignment in self.set:
            set_key(mapping, assignment)
        return mapping


@dataclass(frozen=True)
class Sheet:
    """What a sheet of a study shows. One variant without the true render: its scenes in a square."""

    scales: tuple[float, ...] = ()
    """Times native, a sheet each; none: all of the study's."""
    variants: tuple[str, ...] = ()
    """In this order; none: all."""
    scenes: int = 3
    truth: bool = True
    """The true render comes first."""
    parts: tuple[tuple[float, ...], ...] = ()
    """For the first scene, the second and so on, one more row: the part at 1:1 whose upper left corner lies
    at these shares of the picture's width and height."""
    widest: int = 1100
    """Pixels across, on the page of results."""

    def __post_init__(self) -> None:
        """Raise BadConfig for a sheet of nothing, or parts that are not two shares."""
        if self.scenes < 1 or self.widest < 1:
            raise BadConfig(f"sheet: scenes {self.scenes} and widest {self.widest} must be 1 or more")
        for place in self.parts:
            if len(place) != 2 or not all(0 <= share < 1 for share in place):
                raise BadConfig(f"sheet: parts: {list(place)} must be two shares of the sides: [0.25, 0.6]")


@dataclass(frozen=True)
class Study:
    """One study. ``scenes`` says how many at which scale; ``small`` is the short form used in tests."""

    title: str
    variants: dict[str, Any]
    baseline: str
    """The variant that all others are compared with, scene by scene."""
    preset: str = "imax"
    """Of variants that name none. Studies of the paper's parts take ``one_jump``, where each part acts."""
    paper: str = ""
    """The figure or section it reproduces, if any."""
    trial: str = ""
    """What a shortened study leaves out, in words; none: it is whole."""
    scenes: dict[str, Any] = field(default_factory=lambda: {"2": 24, "4": 12})
    aspects: tuple[str, ...] = ("1:1",)
    kind: Kind = "pictures"
    guide: Guide = "native"
    vote: bool = False
    """Also a pairwise preference between all variants, by the testbed's own judge."""
    plot: Literal["bars", "lines", "sizes", "pareto"] = "bars"
    axis: str = ""
    """Label of the x axis of a line plot."""
    shown: tuple[str, ...] = ()
    """Measures in plot and summary; none: the study's most telling ones."""
    plotted: tuple[str, ...] = ()
    """Measures of a Pareto plot; none: those shown."""
    named: tuple[str, ...] = ()
    """Variants whose names stand in a Pareto plot, in which the others are pale points; none: all."""
    sheet: Sheet | None = None
    """The sheet on the page of results, if it has one."""
    finding: str = ""
    """One paragraph for RESULTS.md, written by a person after looking at the numbers."""

    def __post_init__(self) -> None:
        for scale, count in self.scenes.items():
            if not (str(scale).isdigit() and int(scale) and isinstance(count, int) and count > 0):
                raise BadConfig(f"scenes: {scale}: {count} is not SCALE: COUNT in whole numbers, like 2: 24")
        for place in (self.sheet or Sheet()).scales:
            if place not in self.counts:
                known = ", ".join(map(str, self.scenes))
                raise BadConfig(f"sheet: scales: {place:g} is not a scale of this study; choose {known}")
        named = [("baseline", self.baseline), *(("named:", name) for name in self.named)]
        named += [("sheet:", name) for name in (self.sheet or Sheet()).variants]
        for what, name in named:
            if name not in self.variants:
                raise BadConfig(f"{what} {name!r} is not a variant; choose {', '.join(self.variants)}")

    @property
    def parsed_variants(self) -> dict[str, Variant]:
        """The variants by name."""
        variants = {
            name: from_mapping(Variant, mapping or {}, where=f"variants: {name}")
            for name, mapping in self.variants.items()
        }
        return {n: replace(v, preset=v.preset or self.preset) for n, v in variants.items()}

    @property
    def counts(self) -> dict[float, int]:
        """Scenes by scale (times native, each side)."""
        return {float(scale): int(count) for scale, count in self.scenes.items()}

    def shortened(self) -> Study:
        """Two scenes at 2x and at most four variants: seconds, not a result."""
        kept = list(self.variants)[:4]
        kept = kept if self.baseline in kept else [self.baseline, *kept[:3]]
        trial = f"a trial: {SMALL_SCENES} scenes, {len(kept)} of {len(self.variants)} variants"
        return replace(
            self,
            trial=f"{trial}; it shows that the study runs, its intervals say nothing",
            scenes=_small_scenes(self),
            variants={name: self.variants[name] for name in kept},
            named=tuple(name for name in self.named if name in kept),
            aspects=self.aspects[:1],
            sheet=None,
        )

    def with_scenes(self, count: int) -> Study:
        """``count`` scenes at every scale."""
        return replace(self, scenes=dict.fromkeys(self.scenes, count))

    def with_upscaler(self, path: str) -> Study:
        """One more variant: the native picture enlarged by the user's own network."""
        extra = {f"enlarged by {Path(path).stem}": {"enlarge": path}}
        return replace(self, variants={**self.variants, **extra})


def study_names() -> list[str]:
    """The studies that ship."""
    return list(named_configs("studies"))


def load_study(name: str) -> Study:
    """A study by name, or from a YAML file of the same form. Raises BadConfig or a wrong key's sentence."""
    if name.endswith((".yaml", ".yml")):
        return _study(load_yaml(Path(name)), where=name)
    return _study(load_named("studies", name), where=f"configs/studies/{name}.yaml")


def _study(mapping: Mapping[str, Any], *, where: str) -> Study:
    texts = dict(mapping)
    if isinstance(texts.get("scenes"), dict):
        texts["scenes"] = {str(scale): count for scale, count in texts["scenes"].items()}
    if isinstance(texts.get("variants"), dict):
        texts["variants"] = {str(name): way for name, way in texts["variants"].items()}
    study = from_mapping(Study, texts, where=where)
    for way in study.parsed_variants.values():
        way.method()
    return study


def _small_scenes(study: Study) -> dict[str, Any]:
    scales = ("1", SMALL_SCALE) if study.kind == "velocity_loss" else (SMALL_SCALE,)
    return dict.fromkeys(scales, SMALL_SCENES)
