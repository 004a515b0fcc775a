"""The names that CompVis's code gave the weights of Stable Diffusion, which A1111, Forge and ComfyUI open as a model.

diffusers numbers blocks and the layers in them, CompVis all steps of the U-Net in one row: the first convolution, then
for each block its layers and its down- or upsampler. Every diffusers weight has one CompVis weight; only the text
encoder of Stable Diffusion 2 (OpenCLIP) joins Q, K and V.
"""

import re
from collections.abc import Callable, Iterable

import numpy as np

from crce.errors import CrceError
from crce.tensor_files import LazyTensor, LazyTensors

UNET = "model.diffusion_model."
VAE = "first_stage_model."
TEXT = "cond_stage_model.transformer.text_model."
OPEN_CLIP = "cond_stage_model.model."

_ENDS = {
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
}  # fmt: skip
_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_BLOCK = re.compile(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
# A VAE that an old diffusers saved, such as that of SD v1.4, has the second names.
_VAE_ATTENTION = {
    "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
    "query": "q", "key": "k", "value": "v", "proj_attn": "proj_out",
}  # fmt: skip
_OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
}  # fmt: skip
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip


def checkpoint(unet: LazyTensors, vae: LazyTensors, text: LazyTensors, open_clip: bool) -> LazyTensors:
    """All weights of a model in one dictionary. open_clip: whether the text encoder is Stable Diffusion 2's.

    Raises CrceError for a weight that Stable Diffusion 1 and 2 do not have.
    """
    text = {name.removeprefix("text_model."): tensor for name, tensor in text.items()}
    return {
        **{UNET + new: unet[old] for old, new in unet_names(unet).items()},
        **{VAE + new: _as_convolution(old, vae[old]) for old, new in vae_names(vae).items()},
        **(_open_clip(text) if open_clip else {TEXT + name: tensor for name, tensor in text.items()}),
    }


def unet_names(names: Iterable[str]) -> dict[str, str]:
    """The CompVis name of each weight of a U-Net. Raises CrceError for a weight that has none."""
    names = list(names)
    layers = _count(names, r"down_blocks\.0\.resnets\.(\d+)\.")
    attended = {int(found[1]) for name in names if (found := re.match(r"up_blocks\.(\d+)\.attentions\.", name))}
    return _rename(names, lambda module: _unet_module(module, layers, attended))


def _unet_module(module: str, layers: int, attended: set[int]) -> str | None:
    """attended: the upward blocks with attention, whose upsampler comes third in its step."""
    if not (found := _BLOCK.fullmatch(module)):
        return _ENDS.get(module)
    way, block, kind, layer, rest = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
    step = block * (layers + 1) + (layers if kind.endswith("samplers") else layer)
    inner = _RESNET.get(rest) if kind == "resnets" else rest
    if inner is None:
        return None
    if kind == "downsamplers":
        return f"input_blocks.{step + 1}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{step}.{2 if block in attended else 1}.{inner}"
    place = int(kind == "attentions")
    if way == "mid":
        return f"middle_block.{1 if place else 2 * layer}.{inner}"
    return f"input_blocks.{step + 1}.{place}.{inner}" if way == "down" else f"output_blocks.{step}.{place}.{inner}"


def vae_names(names: Iterable[str]) -> dict[str, str]:
    """The CompVis name of each weight of a VAE, which numbers the upward blocks from the picture's end."""
    names = list(names)
    levels = _count(names, r"decoder\.up_blocks\.(\d+)\.")
    return _rename(names, lambda module: _vae_module(module, levels))


def _vae_module(module: str, levels: int) -> str | None:
    side, _, inner = module.partition(".")
    if not (found := _BLOCK.fullmatch(inner)):
        return module.replace("conv_norm_out", "norm_out")
    way, block, kind, layer, rest = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
    if kind == "attentions":
        return f"{side}.mid.attn_1.{_VAE_ATTENTION[rest]}" if rest in _VAE_ATTENTION else None
    level = levels - 1 - block if way == "up" else block
    if kind.endswith("samplers"):
        return f"{side}.{way}.{level}.{way}sample.{rest}"
    rest = rest.replace("conv_shortcut", "nin_shortcut")
    return f"{side}.mid.block_{layer + 1}.{rest}" if way == "mid" else f"{side}.{way}.{level}.block.{layer}.{rest}"


def _as_convolution(name: str, tensor: LazyTensor) -> LazyTensor:
    """CompVis's VAE attends with convolutions of one pixel, where diffusers has matrices."""
    flat = ".attentions." in name and len(tensor.shape) == 2
    return tensor.reshaped(*tensor.shape, 1, 1) if flat else tensor


def _open_clip(text: LazyTensors) -> LazyTensors:
    made: LazyTensors = {}
    for name, tensor in text.items():
        found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        layer = f"transformer.resblocks.{found[1]}" if found else ""
        if name in _OPEN_CLIP:
            made[OPEN_CLIP + _OPEN_CLIP[name]] = tensor
        elif found and found[2] in _OPEN_CLIP_LAYER:
            made[f"{OPEN_CLIP}{layer}.{_OPEN_CLIP_LAYER[found[2]]}.{found[3]}"] = tensor
        elif found and found[2] == "self_attn.q_proj":
            parts = [text[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            made[f"{OPEN_CLIP}{layer}.attn.in_proj_{found[3]}"] = _joined(parts)
        elif not found or found[2] not in ("self_attn.k_proj", "self_attn.v_proj"):
            raise _unknown(name)
    return made


def _joined(parts: list[LazyTensor]) -> LazyTensor:
    first, *_ = parts
    return LazyTensor((3 * first.shape[0], *first.shape[1:]), lambda: np.concatenate([part.load() for part in parts]))


def _rename(names: list[str], module_name: Callable[[str], str | None]) -> dict[str, str]:
    made = {}
    for name in names:
        module, _, part = name.rpartition(".")
        new = module_name(module)
        if new is None:
            raise _unknown(name)
        made[name] = f"{new}.{part}"
    return made


def _unknown(name: str) -> CrceError:
    return CrceError(
        f"The base has {name}, which Stable Diffusion 1 and 2 do not have, so it cannot be one checkpoint file. "
        "Choose the pipeline folder."
    )


def _count(names: list[str], pattern: str) -> int:
    return 1 + max((int(found[1]) for name in names if (found := re.match(pattern, name))), default=-1)
