from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from PIL import Image

from synth2_lightning.demo.answers import Answerer
from synth2_lightning.export.captioner import Captioner
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.scenes.drawing import draw_scene
from synth2_lightning.scenes.world import scene_at
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler


def test_a_caption_comes_with_a_map_for_each_of_its_words(module: VisionLanguageModule, tmp_path: Path) -> None:
    draw_scene(scene_at("val", 0)).save(tmp_path / "scene.png")
    answer = Answerer(Captioner(module, "cpu"), None).answer(tmp_path / "scene.png")
    assert answer.caption
    assert [word for _, word in answer.words] == answer.caption.split()
    assert (answer.words_note, answer.neighbors) == ("", [])


def test_an_image_is_read_by_the_rules_of_all_images(module: VisionLanguageModule, tmp_path: Path) -> None:
    answerer = Answerer(Captioner(module, "cpu"), None)
    upright = draw_scene(scene_at("val", 0))
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    upright.rotate(180).save(tmp_path / "turned.png", exif=exif)
    one, other = (answerer.answer(tmp_path / f"{name}.png") for name in ("upright", "turned"))
    assert one.words
    assert [each.tobytes() for each, _ in one.words] == [each.tobytes() for each, _ in other.words]
    Image.new("1", (15_000, 15_000)).save(tmp_path / "bomb.png")
    with pytest.raises(OSError, match=r"bomb\.png.*15000 x 15000.*178956970"):
        answerer.answer(tmp_path / "bomb.png")


def test_parts_without_maps_give_the_reason_beside_the_caption(tmp_path: Path) -> None:
    Image.new("RGB", (9, 8), "white").save(tmp_path / "white.png")
    tiny = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    answer = Answerer(Captioner(tiny, "cpu"), None).answer(tmp_path / "white.png")
    assert answer.words == []
    reason = "TinyResampler" if answer.caption else "empty"
    assert reason in answer.words_note


def test_closing_waits_for_the_running_answer(tmp_path: Path) -> None:
    class BlockedCaptioner(Captioner):
        def caption(self, *args: Any, **options: Any) -> list[str]:
            started.set()
            assert goes_on.wait(30)
            return super().caption(*args, **options)

    started, goes_on = Event(), Event()
    Image.new("RGB", (9, 8), "white").save(tmp_path / "white.png")
    tiny = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    answerer = Answerer(BlockedCaptioner(tiny, "cpu"), None)
    answers: list[Any] = []
    running = Thread(target=lambda: answers.append(answerer.answer(tmp_path / "white.png")))
    running.start()
    assert started.wait(30)
    closing = Thread(target=answerer.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    assert answers == []
    goes_on.set()
    for thread in (running, closing):
        thread.join(30)
        assert not thread.is_alive()
    assert len(answers) == 1
