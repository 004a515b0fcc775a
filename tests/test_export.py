"""Exports: each loads in the stock tool by the lines that it comes with, and holds what it says."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from crce import bases, runs, tensor_files
from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.methods.erased_weights import ErasedWeights
from crce.models.diffusion import Diffusion
from crce.publishing import export, ldm
from crce.publishing.low_rank import factorise
from crce.runs import Job
from crce.tensor_files import LazyTensor
from crce.training.loop import erase_steps

DRAWN = {"num_inference_steps": 6, "guidance_scale": 4.0, "output_type": "pt"}


def save_run(model, config, name="dog"):
    """A finished run of a training on the model."""
    spec = ConceptSpec(name)
    made = runs.create(Job(model.base, spec, config))
    *_, step = erase_steps(model, spec, made.job.config)
    step.weights().save(made.weights_path)
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The tiny model with the shape of SD's blocks: a level without attention, two layers in each, old VAE names."""
    from tests.tiny import save_tiny_sd

    folder = tmp_path_factory.mktemp("stable") / "tiny-sd"
    save_tiny_sd(folder)
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=2, block_out_channels=(8, 8, 16, 16), layers_per_block=2, norm_num_groups=4, attention_head_dim=4,
        cross_attention_dim=32,
    ).save_pretrained(folder / "unet")  # fmt: skip
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    olden = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    names = {name: re.sub("|".join(olden), lambda m: olden[m[0]], name) for name in load_file(vae)}
    save_file({names[n]: t for n, t in load_file(vae).items()}, vae, {"format": "pt"})
    return Diffusion.load(str(folder), device="cpu")


@pytest.fixture(scope="module")
def erased(model):
    """W' of an erasure that changes convolutions, norms and biases, by name."""
    *_, step = erase_steps(model, ConceptSpec("dog"), EraseConfig("esd-u", steps=2, lr=1e-2))
    return step.weights()


@pytest.fixture
def run(model, erased):
    made = runs.create(Job(model.base, ConceptSpec("dog"), EraseConfig("esd-u", steps=2, lr=1e-2)))
    erased.save(made.weights_path)
    return made


def loaded(exported):
    """The pipeline that the lines of an export make."""
    scope = {}
    exec(exported.snippet, scope)
    return scope["pipe"]


def draw(pipe, noise):
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    return pipe("a dog", latents=noise.clone(), **DRAWN).images


def weights_of(pipe):
    return {f"{part}.{n}": t for part in ("unet", "vae", "text_encoder")
            for n, t in getattr(pipe, part).state_dict().items()}  # fmt: skip


@pytest.mark.parametrize("key", ["weights", "pipeline", "checkpoint"])
def test_an_exact_format_is_the_erased_model_in_stock_diffusers(model, erased, run, tmp_path, key):
    (made,) = export.export(run, [key], tmp_path)
    pipe, base = loaded(made), StableDiffusionPipeline.from_pretrained(model.base)
    base.unet.load_state_dict(erased.tensors, strict=False)
    expected, found = weights_of(base), weights_of(pipe)
    assert expected.keys() == found.keys() and all(torch.equal(t, found[n]) for n, t in expected.items())
    noise = model.noise([7])
    # To far less than a level of 255: weights that lie otherwise in memory may be rounded otherwise.
    torch.testing.assert_close(draw(pipe, noise), draw(base, noise), atol=1e-4, rtol=0)
    with erased.applied(model):
        ours = model.draw(["a dog"], [7], 6, 4.0)
    torch.testing.assert_close(draw(pipe, noise), ours, atol=2e-3, rtol=0)


@pytest.mark.parametrize("key", ["weights", "lora", "pipeline", "checkpoint"])
def test_three_lines_load_it(run, tmp_path, key):
    (made,) = export.export(run, [key], tmp_path)
    lines = [line for line in made.snippet.splitlines() if not line.startswith("from ")]
    assert 1 <= len(lines) <= 3 and made.limits


def test_a_lora_with_convolutions_loads_in_stock_diffusers(model, erased, run, tmp_path):
    (made,) = export.export(run, ["lora"], tmp_path)
    pipe = loaded(made)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    found, base = pipe.unet.state_dict(), dict(model.unet.named_parameters())
    # The tiny layers have a rank below 32, so all but norms and biases is exact.
    assert {name for name, w in erased.tensors.items() if w.ndim == 4 and not torch.equal(w, base[name])}
    for name, w in erased.tensors.items():
        torch.testing.assert_close(found[name], w if w.ndim > 1 else base[name].data, atol=2e-6, rtol=1e-4)
    changes = {name: w - base[name].detach() for name, w in erased.tensors.items()}
    lost = sum(c.square().sum() for c in changes.values() if c.ndim == 1) / sum(
        c.square().sum() for c in changes.values()
    )
    assert made.error == pytest.approx(lost.sqrt().item(), abs=1e-3)


def test_where_ranks_would_differ_diffusers_still_scales_a_lora_right(tiny_sd, tmp_path):
    """Its alphas of attention layers are lost on the way: only equal ones are safe."""
    made = save_run(tiny_sd, EraseConfig("esd-x-strict", steps=2, lr=1e-2))
    (lora,) = export.export(made, ["lora"], tmp_path)
    pipe, changed = loaded(lora), load_file(made.weights_path)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    assert len({min(w.shape) for w in changed.values()}) > 1
    for name, w in changed.items():
        torch.testing.assert_close(pipe.unet.state_dict()[name], w, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (6, 2, 3, 3), (9, 4, 1, 1)])
def test_factors_are_the_best_of_their_rank(shape):
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = factorise(weight, 3)
    product = np.einsum("or,ri->oi", found.up.reshape(shape[0], 3), found.down.reshape(3, -1))
    values = np.linalg.svd(weight.reshape(shape[0], -1), compute_uv=False)
    rest = np.square(weight.reshape(shape[0], -1) - product).sum()
    assert rest == pytest.approx(np.square(values[3:]).sum(), rel=1e-4) == pytest.approx(found.lost, rel=1e-4)
    assert found.up.ndim == found.down.ndim == len(shape)


# What the other tools look for. Their rules are written here from their loaders.


def comfy_names(unet):
    """ComfyUI's and Forge's way from a LoRA's key to a weight: our names with "_" for ".", of all weights."""
    places = ldm.unet_names(unet)
    modules = {name.rpartition(".")[0] for name in unet}
    return {
        f"lora_unet_{module.replace('.', '_')}": places[f"{module}.weight"].removesuffix(".weight")
        for module in modules
    }


def a1111_name(key):
    """A1111's: numbers of blocks and layers become CompVis's, three steps a block."""
    resnet = {"norm1": "in_layers_0", "conv1": "in_layers_2", "norm2": "out_layers_0", "conv2": "out_layers_3",
              "time_emb_proj": "emb_layers_1", "conv_shortcut": "skip_connection"}  # fmt: skip
    whole = {"conv_in": "input_blocks_0_0", "conv_out": "out_2", "time_embedding_linear_1": "time_embed_0",
             "time_embedding_linear_2": "time_embed_2"}  # fmt: skip
    name = key.removeprefix("lora_unet_")
    if name in whole:
        return whole[name]
    if found := re.fullmatch(r"down_blocks_(\d)_downsamplers_0_conv", name):
        return f"input_blocks_{3 + 3 * int(found[1])}_0_op"
    if found := re.fullmatch(r"up_blocks_(\d)_upsamplers_0_conv", name):
        return f"output_blocks_{2 + 3 * int(found[1])}_{2 if int(found[1]) else 1}_conv"
    found = re.fullmatch(r"(down|mid|up)_blocks?_(?:(\d)_)?(attentions|resnets)_(\d)_(.+)", name)
    if not found:
        return None
    way, block, kind, layer, rest = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
    rest, attends = resnet.get(rest, rest) if kind == "resnets" else rest, int(kind == "attentions")
    if way == "mid":
        return f"middle_block_{1 if attends else 2 * layer}_{rest}"
    step = 3 * block + layer + (way == "down")
    return f"{'input' if way == 'down' else 'output'}_blocks_{step}_{attends}_{rest}"


def test_every_key_of_difference_and_lora_is_one_that_the_others_look_for(run, erased, tmp_path):
    diff, lora = export.export(run, ["diff", "lora"], tmp_path)
    comfy = comfy_names(erased.tensors)
    for made, parts in ((diff, {"diff", "diff_b"}), (lora, {"lora_up.weight", "lora_down.weight", "alpha"})):
        with safe_open(made.path, "numpy") as file:
            split = [key.partition(".") for key in file.keys()]  # noqa: SIM118
        assert {part for _, _, part in split} == parts
        modules = {module for module, _, _ in split}
        assert modules <= comfy.keys()
        # A1111 finds the last norm by no name: only a difference holds it, which is for ComfyUI and Forge.
        assert {m for m in modules if a1111_name(m) != comfy[m].replace(".", "_")} <= {"lora_unet_conv_norm_out"}
    own = {
        "conv_in",
        "down_blocks_0_resnets_0_conv1",
        "up_blocks_0_upsamplers_0_conv",
        "mid_block_attentions_0_proj_in",
    }
    assert modules >= {f"lora_unet_{name}" for name in own}


def test_the_difference_added_to_the_base_by_comfyui_is_the_erased_checkpoint(model, run, erased, tmp_path):
    diff, whole = export.export(run, ["diff", "checkpoint"], tmp_path)
    none = ErasedWeights({n: p.detach() for n, p in model.unet.named_parameters()}, {"base": model.base})
    none.save(run.weights_path)
    (before,) = export.export(run, ["checkpoint"], tmp_path / "base")
    weights, changes = load_file(before.path), load_file(diff.path)
    for key, place in comfy_names(erased.tensors).items():
        for part, kind in (("diff", "weight"), ("diff_b", "bias")):
            if f"{key}.{part}" in changes:
                weights[f"{ldm.UNET}{place}.{kind}"] += changes[f"{key}.{part}"]
    expected = load_file(whole.path)
    assert weights.keys() == expected.keys()
    assert all(torch.allclose(w, expected[n], atol=1e-6) for n, w in weights.items())


def test_no_key_of_a_difference_is_one_that_sd_scripts_or_diffusers_look_for(run, tmp_path):
    (diff,) = export.export(run, ["diff"], tmp_path)
    assert not [key for key in load_file(diff.path) if "lora_down" in key or "lora_A" in key]
    assert "sd-scripts and diffusers find nothing" in diff.limits


@pytest.fixture(scope="module")
def stable():
    """The names and shapes of SD v1's networks, without their values."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2,
        )  # fmt: skip
    return [{n: LazyTensor(tuple(t.shape), lambda: None) for n, t in net.state_dict().items()} for net in (unet, vae)]


def test_a_checkpoint_of_sd_v1_has_the_names_by_which_the_others_know_it(stable):
    made = ldm.checkpoint(*stable, {"embeddings.position_embedding.weight": LazyTensor((77, 768), lambda: None)}, False)
    counts = [sum(name.startswith(prefix) for name in made) for prefix in (ldm.UNET, ldm.VAE)]
    assert counts == [686, 248]  # CompVis's, as counted in sd-v1-4.ckpt
    unet, vae = ldm.UNET, ldm.VAE
    for name, shape in {
        "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": (77, 768),
        f"{unet}input_blocks.0.0.weight": (320, 4, 3, 3), f"{unet}input_blocks.3.0.op.weight": (320, 320, 3, 3),
        f"{unet}input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
        f"{unet}input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
        f"{unet}middle_block.1.proj_in.weight": (1280, 1280, 1, 1), f"{unet}middle_block.2.out_layers.3.bias": (1280,),
        f"{unet}output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        f"{unet}output_blocks.8.2.conv.weight": (640, 640, 3, 3),
        f"{unet}output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1), f"{unet}out.2.weight": (4, 320, 3, 3),
        f"{unet}time_embed.2.weight": (1280, 1280), f"{vae}decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
        f"{vae}encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        f"{vae}encoder.mid.attn_1.q.weight": (512, 512, 1, 1), f"{vae}decoder.norm_out.bias": (128,),
        f"{vae}decoder.up.0.block.2.conv2.bias": (128,), f"{vae}post_quant_conv.weight": (4, 4, 1, 1),
    }.items():  # fmt: skip
        assert made[name].shape == shape, name


def test_keys_and_values_of_sd_v1_are_38_mb_in_fp16(stable):
    unet, _ = stable
    shapes = [t.shape for n, t in unet.items() if re.search(r"attn2\.to_[kv]\.", n)]
    assert len(shapes) == 32 and round(2 * sum(np.prod(shape) for shape in shapes) / 1e6) == 38


def test_the_text_encoder_of_sd_2_gets_the_names_of_openclip(model, erased, tmp_path):
    """ComfyUI and A1111 read SD 2's so, and so does diffusers."""
    folder = tmp_path / "two"
    shutil.copytree(model.base, folder)
    torch.manual_seed(0)
    config = CLIPTextConfig.from_pretrained(folder / "text_encoder", hidden_act="gelu")
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    run = runs.create(Job(str(folder), ConceptSpec("dog"), EraseConfig("esd-u", steps=2, lr=1e-2)))
    # Made on the base as it was; the text encoder that is new here has no part in it.
    replace(erased, info={**erased.info, "base_digest": ""}).save(run.weights_path)
    (made,) = export.export(run, ["checkpoint"], tmp_path)
    names = [name for name in load_file(made.path) if name.startswith("cond_stage_model.")]
    layer = "cond_stage_model.model.transformer.resblocks.1."
    assert {f"{layer}attn.in_proj_weight", f"{layer}mlp.c_fc.bias", "cond_stage_model.model.ln_final.weight"} < {*names}
    assert not [name for name in names if "self_attn" in name]
    found = loaded(made).text_encoder.state_dict()
    expected = CLIPTextModel.from_pretrained(folder / "text_encoder").state_dict()
    assert all(torch.equal(found[name], t) for name, t in expected.items())


def test_a_model_of_another_kind_is_no_one_checkpoint_file(model, run, tmp_path):
    folder = tmp_path / "xl"
    shutil.copytree(model.base, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "StableDiffusionXLPipeline"}))
    other = replace(export.Erasure.of(run), base=str(folder))
    with pytest.raises(CrceError, match="xl is a StableDiffusionXLPipeline.*Choose the pipeline folder"):
        export.checkpoint(other)
    with pytest.raises(CrceError, match=r"add_embedding.*Choose the pipeline"):
        ldm.unet_names(["add_embedding.linear_1.weight"])


# Precision


def saved_in(model, dtype, folder):
    """The model's folder with all weights in this precision."""
    shutil.copytree(model.base, folder)
    for path in folder.glob("*/*.safetensors"):
        if path.parent.name != "judge":
            save_file({n: t.to(dtype) for n, t in load_file(path).items()}, path, {"format": "pt"})
    return folder


@pytest.mark.parametrize("key", list(export.FORMATS))
def test_a_base_saved_in_bf16_is_exported(tiny_sd, tmp_path, key):
    base = saved_in(tiny_sd, torch.bfloat16, tmp_path / "bf16")
    model = Diffusion.load(str(base), device="cpu")
    made = save_run(model, EraseConfig("esd-x-strict", steps=1, lr=1e-3))
    (done,) = export.export(made, [key], tmp_path)
    changed, kept = load_file(made.weights_path), dict(model.unet.named_parameters())
    if done.snippet:
        pipe = loaded(done)
        if key == "lora":
            pipe.fuse_lora()
            pipe.unload_lora_weights()
        for name, w in pipe.unet.state_dict().items():
            torch.testing.assert_close(w, changed.get(name, kept[name].data), atol=1e-6, rtol=1e-4)
    else:
        biggest = max(t.abs().max().item() for t in load_file(done.path).values())
        assert 0 < biggest < 1.1e-3  # one step of Adam, and nothing of the base


@pytest.mark.parametrize(
    ("dtype", "method"), [("bf16", "esd-x-strict"), ("fp16", "esd-x-strict"), ("bf16", "crce-uce")]
)
def test_training_begins_with_the_files_own_precision(tiny_sd, tmp_path, dtype, method):
    """Else the difference that is exported is the rounding of the network, many times larger than what was trained."""
    model = Diffusion.load(tiny_sd.base, device="cpu", dtype=dtype)
    model.defaults = replace(model.defaults, damping=1e12)  # of the closed form: it changes next to nothing
    made = save_run(model, EraseConfig(method, steps=1, lr=1e-9))
    (diff,) = export.export(made, ["diff"], tmp_path)
    rounding = max((w - w.to(model.dtype).float()).abs().max().item() for w in tiny_sd.unet.parameters())
    assert rounding > 1e-5 > 1e-7 > max(t.abs().max().item() for t in load_file(diff.path).values())


def test_a_model_made_in_memory_has_its_own_weights_as_masters(tiny_sd):
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd.base)
    pipeline.unet.register_to_config(_name_or_path="")
    model = Diffusion(pipeline, tiny_sd.base, "cpu", torch.float32)
    (name, weight), *_ = model.unet.named_parameters()
    assert torch.equal(model.masters([name])[name], weight)


@pytest.mark.parametrize("key", list(export.FORMATS))
def test_fp16_is_half_the_size_and_near(run, erased, tmp_path, key):
    (full,), (half,) = export.export(run, [key], tmp_path), export.export(run, [key], tmp_path, fp16=True)
    assert half.path != full.path and "fp16" in half.path.name
    names = sorted(path.relative_to(full.path) for path in full.path.rglob("*.safetensors")) or [""]
    pairs = [(full.path / name, half.path / name) for name in names]
    for one, other in pairs:
        exact, near = load_file(one), load_file(other)
        assert exact.keys() == near.keys() and {t.dtype for t in near.values()} == {torch.float16}
        assert all(torch.allclose(t, near[n].float(), rtol=1e-3, atol=1e-6) for n, t in exact.items())


def test_what_fp16_cannot_hold_is_refused(tmp_path):
    tensors = {"w": LazyTensor.of(np.array([1e5], np.float32))}
    with pytest.raises(CrceError, match="w has values above 65504.*without fp16"):
        tensor_files.write(tmp_path / "x.safetensors", tensors, {}, fp16=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_file_is_read_exactly_and_written_as_the_library_reads_it(tmp_path, dtype):
    torch.manual_seed(0)
    shapes = {"a": (3, 5), "b.c": (2, 3, 1, 1), "empty": (0, 4), "scalar": ()}
    tensors = {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()} | {"ids": torch.arange(4)}
    save_file(tensors, tmp_path / "a.safetensors", {"who": "é"})
    read, info = tensor_files.read(tmp_path / "a.safetensors")
    tensor_files.write(tmp_path / "b.safetensors", read, info)
    again = load_file(tmp_path / "b.safetensors")
    assert again.keys() == tensors.keys() - {"ids"} and info == {"who": "é"}
    assert all(torch.equal(t, tensors[n].float()) and t.shape == tensors[n].shape for n, t in again.items())
    with safe_open(tmp_path / "b.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "who": "é"}


@pytest.mark.parametrize("broken", [b"", b"broken", (10**9).to_bytes(8, "little") + b"{}"])
def test_a_broken_file_is_named(tmp_path, broken):
    (tmp_path / "a.safetensors").write_bytes(broken)
    with pytest.raises(CrceError, match="a.safetensors cannot be read"):
        tensor_files.read(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("files", "found"),
    [(["m", "m.fp16"], ["m"]), (["m.fp16"], ["m.fp16"]), (["m.non_ema", "m"], ["m"]),
     (["m-00001-of-00002", "m-00002-of-00002"], ["m-00001-of-00002", "m-00002-of-00002"]),
     (["m-00001-of-00002", "m-00002-of-00002", "m"], ["m"])],
)  # fmt: skip
def test_the_weights_of_a_folder(tmp_path, files, found):
    for name in files:
        (tmp_path / f"{name}.safetensors").touch()
    assert [path.stem for path in tensor_files.find_weights(tmp_path)] == found
    with pytest.raises(CrceError, match="no weights as safetensors"):
        tensor_files.find_weights(tmp_path / "none")


# Files


def test_two_erasures_do_not_collide(model, run):
    again = runs.create(Job(model.base, ConceptSpec("cat"), EraseConfig("esd-u", steps=2)))
    ca = runs.create(Job(model.base, ConceptSpec("dog"), EraseConfig("crce", backbone="fmn", corefs=0, retains=0)))
    names = [export.name_of(made.job) for made in (run, again, ca)]
    assert names == ["without-dog-esd-u", "without-cat-esd-u", "without-dog-crce-on-fmn"]
    many = replace(run.job, also=tuple(ConceptSpec(f"concept {i}") for i in range(30)))
    other = replace(run.job, also=tuple(ConceptSpec(f"concept {i}") for i in range(31)))
    assert len(export.name_of(many)) < 100 and export.name_of(many) != export.name_of(other)
    assert export.file_name(names[0], "CompVis/stable-diffusion-v1-4", "checkpoint", True) == (
        "stable-diffusion-v1-4-without-dog-esd-u-fp16.safetensors"
    )
    assert export.file_name(names[0], "emoji-sd", "lora") == "without-dog-esd-u-lora.safetensors"


def test_a_whole_model_is_a_base_again(run, erased, tmp_path):
    (made,) = export.export(run, ["pipeline"], tmp_path)
    again = Diffusion.load(str(made.path), device="cpu")
    assert all(torch.equal(w, erased.tensors.get(n, w)) for n, w in again.unet.named_parameters())
    assert bases.defaults(str(made.path)) == bases.defaults(run.job.base)


def test_an_unfinished_run_is_not_exported(run, tmp_path):
    run.weights_path.unlink()
    with pytest.raises(CrceError, match="Let the erasure finish"):
        export.export(run, ["weights"], tmp_path)


def test_a_folder_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").touch()
    for key in ("weights", "pipeline"):
        with pytest.raises(CrceError, match="cannot be written.*another folder"):
            export.export(run, [key], tmp_path / "file")


def test_a_disk_without_room_is_told_before(run, tmp_path):
    huge = {"w": LazyTensor((2**40, 2**10), lambda: None)}
    with pytest.raises(CrceError, match=r"needs \d+ MB and the disk"):
        tensor_files.write(tmp_path / "x.safetensors", huge, {})
