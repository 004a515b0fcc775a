"""The base model: what it draws is decided by prompt and seed alone, and our road is the pipeline's."""

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from crce.config import EraseConfig
from crce.errors import CrceError
from crce.methods.erased_weights import ErasedWeights
from crce.methods.parameters import keys_values
from crce.models.diffusion import Diffusion
from crce.training.loop import erase_steps


def test_we_draw_what_the_stock_pipeline_draws(tiny_sd, tiny_sd_dir):
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd_dir, safety_checker=None)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    noise = tiny_sd.noise([7])
    theirs = pipeline(
        "a dog", latents=noise.clone(), num_inference_steps=6, guidance_scale=4.0, output_type="pt"
    ).images
    torch.testing.assert_close(tiny_sd.draw(["a dog"], [7], 6, 4.0), theirs, atol=2e-3, rtol=0)


def test_a_picture_depends_on_its_prompt_and_seed_alone(tiny_sd):
    alone = tiny_sd.draw(["dog"], [3], 4, 3.0)
    among = tiny_sd.draw(["cat", "dog", "dog"], [3, 3, 4], 4, 3.0)
    torch.testing.assert_close(among[1:2], alone, atol=1e-4, rtol=0)
    assert not torch.allclose(among[0], among[1], atol=1e-4)
    assert not torch.allclose(among[2], among[1], atol=1e-2)


def test_generate_takes_the_settings_of_the_base(tiny_sd):
    image = tiny_sd.generate_batch(["dog"], [0])[0]
    assert image.size == (16, 16) and tiny_sd.defaults.sample_steps == 4


def test_a_prompt_too_long_is_refused_with_its_count(tiny_sd):
    with pytest.raises(CrceError, match="has 102 tokens.*reads 77. Shorten"):
        tiny_sd.embed(["d" * 100])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "no-such-base"}, "There is no base model"),
        ({"device": "cuda:9"}, "sees no CUDA"),
        ({"device": "tpu"}, "There is no device"),
        ({"dtype": "fp8"}, "There is no dtype"),
    ],
)
def test_what_cannot_be_loaded_says_why(tiny_sd_dir, options, message):
    if torch.cuda.is_available() and "CUDA" in message:
        message = "could not be loaded|invalid device"
    with pytest.raises(CrceError, match=message):
        Diffusion.load(**{"base": str(tiny_sd_dir), "device": "cpu", **options})


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(CrceError, match="model_index.json is missing"):
        Diffusion.load(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(CrceError, match="could not be loaded"):
        Diffusion.load(str(tmp_path))


def test_a_pipeline_of_another_kind_is_refused(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(
        CrceError, match="is a FluxPipeline, and only these can be erased: Stable Diffusion 1.x and 2.x"
    ):
        Diffusion.load(str(tmp_path))


@pytest.mark.parametrize(
    "options",
    [
        # SD 2.x: linear projections, a head size for each block, wider text.
        {"use_linear_projection": True, "attention_head_dim": (2, 4), "cross_attention_dim": 48},
        # SDXL: several transformer layers in a block, and more conditions beside the text.
        {"use_linear_projection": True, "transformer_layers_per_block": (2, 1), "addition_embed_type": "text_time",
         "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 80, "cross_attention_dim": 64},
    ],
    ids=["sd-2", "sdxl"],
)  # fmt: skip
def test_keys_and_values_are_recognised_by_type(options):
    unet = UNet2DConditionModel(
        sample_size=2, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **options,
    )  # fmt: skip
    weights = dict(unet.named_parameters())
    wide = {name for name, weight in weights.items() if weight.shape[1:] == (options["cross_attention_dim"],)}
    found = keys_values(unet)
    assert found and set(found) == {name for name in wide if ".attn2." in name}


def on_meta(tiny_sd_dir) -> Diffusion:
    """The tiny model on a device that refuses any tensor left on another one."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd_dir, safety_checker=None)
    return Diffusion(pipeline, str(tiny_sd_dir), "meta", torch.float32)


def test_an_edit_finds_its_device(tiny_sd, tiny_sd_dir, dog):
    *_, step = erase_steps(tiny_sd, dog, EraseConfig(steps=1, corefs=0, retains=0))
    with step.weights().applied(on_meta(tiny_sd_dir)) as model:
        assert model.draw(["dog"], [0], 2, 3.0).device.type == "meta"


@pytest.mark.gpu
def test_the_road_on_a_gpu(tiny_sd_dir, dog, tmp_path):
    model = Diffusion.load(str(tiny_sd_dir), device="cuda")
    *_, step = erase_steps(model, dog, EraseConfig(steps=3, corefs=2, retains=2))
    step.weights().save(tmp_path / "delta.safetensors")
    with ErasedWeights.load(tmp_path / "delta.safetensors").applied(model):
        assert model.generate_batch(["dog"], [0])[0].size == (16, 16)
