"""Bases other than the default: SD 2.1 and SDXL at a tiny size, what works on them, and bases that do not work."""

import json
import shutil
from random import Random

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from crce import bases, runs
from crce.config import EraseConfig, resolve_config
from crce.errors import CrceError
from crce.methods.base import TRAJECTORY, trainable_copies
from crce.methods.losses import StepContext
from crce.methods.parameters import keys_values
from crce.methods.registry import method_of
from crce.methods.salun import MASK_GUIDANCE, _add_forgetting_gradient
from crce.models.diffusion import Diffusion, NoisySample, to_images
from crce.publishing import export
from crce.training.loop import erase_steps
from tests.tiny import felt, save_tiny_sd_2, save_tiny_xl

XL_METHODS = bases.FAMILIES["StableDiffusionXLPipeline"].methods


@pytest.fixture(scope="module")
def sd_2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-sd-2")
    save_tiny_sd_2(folder)
    return Diffusion.load(str(folder), device="cpu")


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-xl")
    save_tiny_xl(folder)
    return Diffusion.load(str(folder), device="cpu")


def stock(model):
    """The pipeline as diffusers loads it."""
    kind = StableDiffusionXLPipeline if len(model.text.encoders) == 2 else StableDiffusionPipeline
    pipeline = kind.from_pretrained(model.base)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn(pipeline, model, prompt="a dog", seed=7):
    noise = model.noise([seed])
    return pipeline(prompt, latents=noise, num_inference_steps=6, guidance_scale=4.0, output_type="pt").images


def erased(model, spec, method, **settings):
    *_, step = erase_steps(model, spec, EraseConfig(method, corefs=2, retains=2, **settings))
    return step.weights()


@pytest.mark.parametrize("name", ["sd_2", "xl"])
def test_we_draw_what_the_stock_pipeline_draws(name, request):
    model = request.getfixturevalue(name)
    ours = model.draw(["a dog", "a cat"], [7, 3], 6, 4.0)
    torch.testing.assert_close(ours[:1], drawn(stock(model), model), atol=2e-3, rtol=0)
    assert not torch.allclose(ours[0], ours[1], atol=0.05)


def test_a_state_of_sdxl_is_what_its_pipeline_encodes(xl):
    words, nothing, pooled, _ = stock(xl).encode_prompt("a dog", device="cpu", do_classifier_free_guidance=True)
    states = torch.stack([xl.embed(["a dog"])[0], xl.unconditional])
    text, further = xl.text.inputs(states, torch.float32)
    torch.testing.assert_close(text, torch.cat([words, nothing]))
    torch.testing.assert_close(further["added_cond_kwargs"]["text_embeds"], torch.cat([pooled, pooled * 0]))
    assert further["added_cond_kwargs"]["time_ids"].tolist() == [[16, 16, 0, 0, 16, 16]] * 2


def test_sdxl_without_zeros_moves_away_from_the_empty_prompt(xl, tmp_path):
    folder = shutil.copytree(xl.base, tmp_path / "xl")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "force_zeros_for_empty_prompt": False}))
    model = Diffusion.load(str(folder), device="cpu")
    assert torch.equal(model.unconditional, model.embed([""])[0])
    torch.testing.assert_close(model.draw(["a dog"], [7], 6, 4.0), drawn(stock(model), model), atol=2e-3, rtol=0)


@pytest.mark.parametrize("method", XL_METHODS)
def test_what_works_on_sdxl_moves_what_the_target_reads(xl, dog, method):
    result = erased(xl, dog, method, steps=2, lr=1e-3)
    before = dict(xl.unet.named_parameters())
    moved = {name for name, tensor in result.tensors.items() if not torch.equal(tensor, before[name])}
    assert moved >= felt(xl, result.tensors) and moved
    with result.applied(xl):
        after = xl.draw(["dog"], [0], 4, 3.0)
    assert after.isfinite().all() and not torch.equal(after, xl.draw(["dog"], [0], 4, 3.0))


def test_an_erasure_of_sdxl_draws_the_same_in_the_stock_pipeline(xl, dog, tmp_path):
    result = erased(xl, dog, "crce", steps=4, lr=1e-2)
    result.save(tmp_path / "delta.safetensors")
    with result.applied(xl):
        ours = xl.draw(["a dog"], [7], 6, 4.0)
    erasure = export.Erasure(tmp_path / "delta.safetensors", xl.base, "without-dog")
    for key in ("weights", "diff", "lora"):
        export.FORMATS[key].make(erasure)[""].write(tmp_path / f"{key}.safetensors")
    pipeline = stock(xl)
    pipeline.unet.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=False)
    torch.testing.assert_close(drawn(pipeline, xl), ours, atol=2e-3, rtol=0)
    pipeline = stock(xl)
    assert not torch.allclose(drawn(pipeline, xl), ours, atol=2e-3)
    pipeline.load_lora_weights(tmp_path / "lora.safetensors")
    torch.testing.assert_close(drawn(pipeline, xl), ours, atol=2e-3, rtol=0)  # of full rank here
    exact = {f"lora_unet_{n.removesuffix('.weight').replace('.', '_')}.diff" for n in result.tensors}
    assert load_file(tmp_path / "diff.safetensors").keys() == exact


@pytest.mark.parametrize("settings", [{"method": "fmn"}, {"method": "spm"}, {"method": "speed"}, {"backbone": "fmn"}])
def test_what_does_not_work_on_sdxl_is_refused_before_a_run(xl, dog, settings):
    config = EraseConfig(**settings)
    with pytest.raises(CrceError, match=r"does not work on Stable Diffusion XL.*Choose one of crce, "):
        runs.create(runs.Job(xl.base, dog, config))
    with pytest.raises(CrceError, match="does not work on Stable Diffusion XL"):
        next(iter(erase_steps(xl, dog, config)))
    with pytest.raises(CrceError, match="Stable Diffusion XL cannot be exported as checkpoint"):
        bases.check_formats(xl.base, ("checkpoint",))


@pytest.mark.parametrize("kind", ["FluxPipeline", "StableDiffusion3Pipeline", "StableDiffusionXLImg2ImgPipeline"])
def test_other_kinds_are_refused_by_their_index_alone(dog, tmp_path, kind):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    for use in (
        lambda: Diffusion.load(str(tmp_path), device="cpu"),
        lambda: runs.create(runs.Job(str(tmp_path), dog, EraseConfig())),
    ):
        with pytest.raises(CrceError, match=f"is a {kind}, and only these can be erased: Stable Diffusion 1.x and 2.x"):
            use()


def test_sdxl_is_drawn_with_its_own_guidance(xl, tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    assert bases.defaults(str(tmp_path)).guidance == 5.0 and bases.defaults(xl.base).guidance == 3.0


@pytest.mark.parametrize("method", ["esd-x-strict", "crce", "ca", "salun", "uce", "mace"])
def test_methods_train_on_a_base_that_predicts_v(sd_2, dog, method):
    result = erased(sd_2, dog, method, steps=2, lr=1e-3)
    before = dict(sd_2.unet.named_parameters())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in result.tensors.items())
    with result.applied(sd_2):
        assert sd_2.draw(["dog"], [0], 4, 3.0).isfinite().all()


@pytest.mark.parametrize("settings", [{}, {"erase_from": "pig"}])
def test_the_goal_is_one_point_in_noise_and_in_v(sd_2, dog, settings):
    """What the formula gives for v is the v of what it gives for the noise."""
    at = next(sample for sample, _ in sd_2.denoise(sd_2.noise([0]), sd_2.embed(["dog"]), 4, 3.0))
    alpha = DDIMScheduler.from_config(sd_2.schedule).alphas_cumprod[at.t[0]]

    def noise_of(v):
        return alpha.sqrt() * v + (1 - alpha).sqrt() * at.x

    config = resolve_config(EraseConfig("esd-x-strict", eta=2.0, **settings), sd_2.base)
    e_a = sd_2.predict(at.x, at.t, sd_2.embed(["hat"]))
    goal = method_of(config).goal(
        StepContext(sd_2, dog, config, {}, {}, at, Random(0), attribute="hat" if settings else "")
    )
    e_c, e_0 = noise_of(at.e_c), noise_of(at.e_0)
    wanted = e_c - 2 * (noise_of(e_a) - e_0) if settings else e_0 - 2 * (e_c - e_0)
    torch.testing.assert_close(noise_of(goal), wanted, atol=1e-4, rtol=1e-4)


def test_salun_looks_for_the_v_between_latent_and_picture(sd_2, dog):
    """Its first gradient is that of the loss on v = (√ᾱ x_t − x_0) / √(1−ᾱ), the noise with x_0 inserted."""
    config = resolve_config(EraseConfig("salun", steps=50), sd_2.base)
    ours, theirs = (trainable_copies(sd_2, keys_values(sd_2.unet)) for _ in range(2))
    _add_forgetting_gradient(sd_2, dog, config, ours, 1.0)
    states = sd_2.embed(["dog"])
    trajectory = list(sd_2.denoise(sd_2.noise([config.seed]), states, TRAJECTORY, config.guidance))
    alphas = DDIMScheduler.from_config(sd_2.schedule).alphas_cumprod
    for sample, _ in trajectory:
        alpha = alphas[sample.t]
        velocity = (alpha.sqrt() * sample.x - trajectory[-1][1]) / (1 - alpha).sqrt()
        e_0, e_c = (sd_2.predict(sample.x, sample.t, s, theirs) for s in (sd_2.embed([""]), states))
        (e_0 + MASK_GUIDANCE * (e_c - e_0) - velocity).square().mean().backward()
    for name, tensor in ours.items():
        torch.testing.assert_close(
            tensor.grad, theirs[name].grad, rtol=1e-3, atol=1e-4 * theirs[name].grad.abs().max().item()
        )


def copy_with(base, to, file, **changes):
    """A copy of a base's folder with other values in one of its files."""
    folder = shutil.copytree(base, to / "copy")
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("unet/config.json", {"in_channels": 9}, "could not be loaded|reads 9 channels"),
        ("unet/config.json", {"cross_attention_dim": 48}, "could not be loaded"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "predicts 'sample'"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
         "begins at pure noise"),
    ],
)  # fmt: skip
def test_a_base_that_does_not_fit_is_one_clear_error_at_load(tiny_sd_dir, tmp_path, file, changes, message):
    folder = copy_with(tiny_sd_dir, tmp_path, file, **changes)
    with pytest.raises(CrceError, match=message):
        Diffusion.load(str(folder), device="cpu")


def test_a_model_for_inpainting_is_named_as_such(tiny_sd_dir, tmp_path):
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd_dir)
    config = {**pipeline.unet.config, "in_channels": 9}
    pipeline.unet = type(pipeline.unet).from_config(config)
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(CrceError, match="reads 9 channels and gives 4.*inpainting"):
        Diffusion.load(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("file", "changes", "shape"),
    [
        ("unet/config.json", {"sample_size": [2, 3]}, (4, 2, 3)),
        ("unet/config.json", {"sample_size": None}, (4, 2, 2)),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 10**30}, (4, 2, 2)),
        ("vae/config.json", {"shift_factor": 0.1}, (4, 2, 2)),
        ("vae/config.json", {"shift_factor": None}, (4, 2, 2)),
    ],
)  # fmt: skip
def test_odd_but_sound_bases_work(tiny_sd_dir, dog, tmp_path, file, changes, shape):
    model = Diffusion.load(str(copy_with(tiny_sd_dir, tmp_path, file, **changes)), device="cpu")
    assert model.latent_shape == shape and model.tokenizer.model_max_length == 77
    assert model.generate("dog").size == (8 * shape[2], 8 * shape[1])
    assert erased(model, dog, "crce", steps=1).tensors


def test_damaged_weights_are_told_at_load(tiny_sd_dir, tmp_path):
    folder = shutil.copytree(tiny_sd_dir, tmp_path / "copy")
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_out.bias"][0] = float("nan")
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CrceError, match="A prediction of .* no finite numbers in float32"):
        Diffusion.load(str(folder), device="cpu")


def test_weights_of_other_shapes_are_named(tiny_sd_dir, tmp_path):
    folder = shutil.copytree(tiny_sd_dir, tmp_path / "copy")
    path = folder / "unet/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "in_channels": 9}))
    with pytest.raises(CrceError, match=r"could not be loaded: .*size mismatch for conv_in\.weight.*\. Give a folder"):
        Diffusion.load(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"variant": "fp16"}, r'only the half-precision variant.*StableDiffusionPipeline.*variant="fp16"'),
        ({"safe_serialization": False}, r"only .bin files.*use_safetensors=False"),
    ],
)
def test_files_that_are_not_read_say_how_to_save_them_anew(tiny_sd_dir, tmp_path, saved, message):
    StableDiffusionPipeline.from_pretrained(tiny_sd_dir).save_pretrained(tmp_path, **saved)
    with pytest.raises(CrceError, match=message):
        Diffusion.load(str(tmp_path), device="cpu")


def test_a_picture_of_no_numbers_is_no_black_picture():
    picture = torch.full((1, 3, 4, 4), 0.5)
    picture[0, 0, 0, 0] = float("nan")
    with pytest.raises(CrceError, match="no finite numbers"):
        to_images(picture)


def test_nothing_of_sdxl_stays_on_the_cpu(xl):
    pipeline = StableDiffusionXLPipeline.from_pretrained(xl.base)
    model = Diffusion(pipeline, xl.base, "meta", torch.float32)
    assert model.draw(["dog", "cat"], [0, 1], 2, 3.0).device.type == "meta"
    moments = [sample for sample, _ in model.denoise(model.noise([0]), model.embed(["dog"]), 2, 3.0)]
    assert isinstance(moments[0], NoisySample) and moments[0].e_c.device.type == "meta"
