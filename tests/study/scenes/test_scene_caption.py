from __future__ import annotations

from imax_dist.study.scenes import caption, sample_scene, varied_caption
from imax_dist.study.scenes.caption import vocabulary
from imax_dist.study.train.text import TEXT_TOKENS

SAID = [varied_caption(sample_scene(seed), seed) for seed in range(1500)]


def test_captions_use_every_word_of_the_vocabulary_and_no_other() -> None:
    assert {word for said in SAID for word in said.split()} == set(vocabulary())


def test_no_caption_is_longer_than_the_text_encoder_reads() -> None:
    assert max(len(said.split()) for said in SAID) <= TEXT_TOKENS - 2, "a mark at each end"


def test_captions_vary_for_one_scene() -> None:
    scene = sample_scene(2)
    assert len({varied_caption(scene, seed) for seed in range(40)}) >= 5


def test_the_plain_caption_states_every_fact() -> None:
    for scene in map(sample_scene, range(200)):
        words = caption(scene).split()
        facts = [scene.sky, scene.light, scene.side, scene.ground, scene.paint, scene.body, *scene.extras]
        assert set(facts) <= set(words)
