"""Cross-attention looked at: where in the picture each text token is read, for methods that train on it."""

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from crce.errors import CrceError
from crce.models.diffusion import Diffusion


@contextmanager
def attention_maps(unet: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, every prediction appends the probabilities of each cross-attention layer, in the order in which they run.

    A map is [n, heads, pixels, tokens] and sums to 1 over the tokens. It is made with the weights that the layer has
    at that moment (`Diffusion.predict`'s too) and carries their gradient.
    """
    maps: list[Tensor] = []
    inside = True

    def keep(layer: Attention, inputs: tuple[Tensor, ...], options: dict, _: Tensor) -> None:
        found = _probabilities(layer, inputs[0], options["encoder_hidden_states"])
        # Not when a block is computed again for its backward pass, which would have to keep all that led to it.
        if inside:
            maps.append(found)

    hooks = [layer.register_forward_hook(keep, with_kwargs=True) for layer in cross_attention_layers(unet).values()]
    try:
        yield maps
    finally:
        inside = False
        for hook in hooks:
            hook.remove()


def cross_attention_layers(unet: nn.Module) -> dict[str, Attention]:
    """By type, not by name: those that read the text."""
    return {n: m for n, m in unet.named_modules() if isinstance(m, Attention) and m.is_cross_attention}


def token_positions(model: Diffusion, text: str, phrase: str) -> list[int]:
    """Where the phrase's tokens stand in the encoded text, at its first place. Raises CrceError if it has none."""
    ids, wanted = (model.tokenizer(t).input_ids for t in (text, phrase))
    wanted = wanted[1:-1]
    for start in range(1, len(ids) - len(wanted)):
        if ids[start : start + len(wanted)] == wanted:
            return list(range(start, start + len(wanted)))
    raise CrceError(f"{phrase!r} does not stand in {text!r} as words of its own. Give a text that names it.")


def concept_tokens(model: Diffusion, text: str, phrase: str) -> list[int]:
    """Where the phrase's tokens stand, and the end of the text with all paddings after it, which carry it too.

    Raises CrceError if the text has none.
    """
    end = len(model.tokenizer(text).input_ids) - 1
    return [*token_positions(model, text, phrase), *range(end, model.tokenizer.model_max_length)]


def _probabilities(layer: Attention, x: Tensor, states: Tensor) -> Tensor:
    query, key = (layer.head_to_batch_dim(part) for part in (layer.to_q(x), layer.to_k(states)))
    return layer.get_attention_scores(query, key).unflatten(0, (len(x), layer.heads))
