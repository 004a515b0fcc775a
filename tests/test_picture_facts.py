"""What a picture was drawn with travels in its file, in the form that other programs read."""

import json
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from crce import bases
from crce.errors import CrceError
from crce.picture_facts import PictureFacts, read_facts, to_png_info


def saved(path: Path, **texts: str) -> Path:
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def test_what_a_picture_was_drawn_with_comes_back_and_others_can_read_it(tmp_path):
    facts = PictureFacts(bases.EMOJI_SD, ("ein Hund, süß", "犬"), (3, 4), ("dog-0001", "cat-0002"), 0.5)
    Image.new("RGB", (8, 8)).save(path := tmp_path / "a.png", pnginfo=to_png_info(facts))
    assert read_facts(path) == facts
    *prompts, settings = Image.open(path).info["parameters"].splitlines()
    assert prompts == ["ein Hund, süß", "犬"]
    assert settings == (
        "Steps: 10, Sampler: DDIM, CFG scale: 7.0, Seed: 3, Model: emoji-sd, CRCE run: dog-0001 cat-0002, "
        "CRCE strength: 0.5"
    )


def test_a_picture_of_another_program_gives_its_prompt_and_seed(tmp_path):
    text = "a dog\non a boat\nNegative prompt: cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Model: v1-5"
    assert read_facts(saved(tmp_path / "a.png", parameters=text)) == PictureFacts("v1-5", ("a dog", "on a boat"), (42,))


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ({}, "no prompt and seed"),
        ({"parameters": "a dog"}, "no prompt and seed"),
        ({"crce": "[1]", "parameters": "Seed: 1"}, "no prompt and seed"),
        ({"crce": json.dumps({"base": 5, "prompts": "dog", "seeds": []})}, "no prompt and seed"),
        ({"parameters": "a dog\n" * 9000 + "Seed: 1"}, "too long"),
    ],
)
def test_a_picture_without_them_is_answered_clearly(tmp_path, texts, told):
    with pytest.raises(CrceError, match=told):
        read_facts(saved(tmp_path / "a.png", **texts))


def test_a_file_that_is_no_picture_is_answered_clearly(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG and nothing more")
    with pytest.raises(CrceError, match="no PNG picture"):
        read_facts(tmp_path / "a.png")
