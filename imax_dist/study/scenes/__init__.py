"""Captioned scenes whose true picture is known at every resolution."""

from __future__ import annotations

from imax_dist.study.scenes.caption import caption, varied_caption
from imax_dist.study.scenes.parse import parse
from imax_dist.study.scenes.render import render
from imax_dist.study.scenes.spec import Scene, sample_scene

__all__ = ["Scene", "caption", "parse", "render", "sample_scene", "varied_caption"]
