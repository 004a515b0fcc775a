"""A base in the files of Stable Diffusion v1.4, tiny: what CompVis ships is read, drawn with and trained."""

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from benchmarks.sd_shaped import PARTS, short_merges, vocabulary_of
from crce.bases import BaseDefaults
from crce.config import EraseConfig
from crce.models.diffusion import Diffusion
from crce.training.loop import erase_steps


def test_words_have_clips_numbers(sd_shaped):
    """Of the real vocabulary: "a" is 320, "dog" 1929 and "cat" 2368; only the two marks have other numbers here."""
    start, *words, end = sd_shaped.tokenizer("a dog cat").input_ids
    assert words == [320, 1929, 2368]
    assert (start, end) == (len(vocabulary_of(short_merges())) - 2, len(vocabulary_of(short_merges())) - 1)


def test_it_has_all_parts_and_the_former_names(sd_shaped_dir):
    assert {path.name for path in sd_shaped_dir.iterdir() if path.is_dir()} == PARTS.keys()
    vae = load_file(sd_shaped_dir / "vae" / "diffusion_pytorch_model.safetensors")
    assert "decoder.mid_block.attentions.0.query.weight" in vae and not any(".to_q." in name for name in vae)
    text = load_file(sd_shaped_dir / "text_encoder" / "model.safetensors")
    assert "text_model.embeddings.position_ids" in text


def test_its_fp16_variant_is_the_same_model_rounded(sd_shaped_dir, sd_shaped):
    pipeline = StableDiffusionPipeline.from_pretrained(
        sd_shaped_dir, variant="fp16", dtype=torch.float16, safety_checker=None, use_safetensors=True
    )
    theirs = pipeline.unet.state_dict()
    assert all(torch.equal(theirs[name], weight.half()) for name, weight in sd_shaped.unet.state_dict().items())


def test_it_is_erased_and_drawn(sd_shaped, dog):
    before = sd_shaped.generate("dog", steps=2)
    *_, step = erase_steps(sd_shaped, dog, EraseConfig(steps=1, corefs=1, retains=1, lr=1e-2))
    with step.weights().applied(sd_shaped):
        after = sd_shaped.generate("dog", steps=2)
    assert before.size == after.size == (64, 64) and before.tobytes() != after.tobytes()
    assert sd_shaped.defaults == BaseDefaults()


def test_all_weights_are_read_by_their_former_names(sd_shaped, sd_shaped_dir):
    """A name that the loader missed would leave a random tensor in its place."""
    again = Diffusion.load(str(sd_shaped_dir), device="cpu")
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = (getattr(model, part).state_dict() for model in (sd_shaped, again))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
