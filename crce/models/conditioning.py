"""What the U-Net is told of a prompt: how a base's text encoders are read, and in which form the U-Net takes it.

Methods see one tensor of states [L, d] a prompt, a row for each token, made by `encode`; `inputs` turns it into the
U-Net's arguments.
"""

from typing import Any

import torch
from torch import Tensor, nn


class TextConditioning:
    """SD 1.x and 2.x: the last hidden states of one text encoder."""

    def __init__(self, parts: dict[str, Any], device: torch.device):
        self.device, self.tokenizers = device, [parts["tokenizer"]]
        self.encoders: list[nn.Module] = [_freeze(parts["text_encoder"], device)]
        self._limit(self.tokenizers[0], self.encoders[0])

    def encode(self, prompt: str) -> Tensor:
        """The prompt's states [L, d] in fp32."""
        return self.encoders[0](self._tokens(prompt, 0))[0][0].float()

    def unconditional(self) -> Tensor:
        """The states [L, d] of no prompt, as classifier-free guidance takes them."""
        return self.encode("")

    def inputs(self, states: Tensor, dtype: torch.dtype) -> tuple[Tensor, dict[str, Any]]:
        """What the U-Net reads as text [n, L, d], and its further arguments."""
        return states.to(dtype), {}

    def _tokens(self, prompt: str, which: int) -> Tensor:
        tokenizer = self.tokenizers[which]
        limit = tokenizer.model_max_length
        given = tokenizer(prompt, padding="max_length", max_length=limit, truncation=True, return_tensors="pt")
        return given.input_ids.to(self.device)

    @staticmethod
    def _limit(tokenizer: Any, encoder: Any) -> None:
        """A tokenizer saved without its length says 10³⁰."""
        tokenizer.model_max_length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)


class TextConditioningXL(TextConditioning):
    """SDXL: the last but one hidden states of two text encoders side by side, d = 768 + 1280, the second one's pooled
    state of 1280, and the sizes of the picture.

    The state of the start mark is the same for every prompt, for CLIP reads forwards; so its row holds the pooled state
    instead, filled up with zeros, and `inputs` puts the mark's own back. Thus a prompt is one tensor here too: a point
    near a prompt is near it in both parts, and no row but the first, which closed forms leave out, means anything else.

    size: height and width of a picture in pixels; it is drawn whole, and so the crop's corner is 0, 0.
    zeros: whether no prompt is all zeros (`force_zeros_for_empty_prompt`), not the states of an empty one.
    """

    def __init__(self, parts: dict[str, Any], device: torch.device, size: tuple[int, int], zeros: bool):
        super().__init__(parts, device)
        self.tokenizers.append(parts["tokenizer_2"])
        self.encoders.append(_freeze(parts["text_encoder_2"], device))
        self._limit(self.tokenizers[1], self.encoders[1])
        self._zeros, self._width = zeros, parts["text_encoder_2"].config.projection_dim
        self._sizes = torch.tensor([*size, 0, 0, *size], dtype=torch.float32)
        self._start = self._encode_both("")[0][0]

    def encode(self, prompt: str) -> Tensor:
        states, pooled = self._encode_both(prompt)
        return torch.cat([torch.nn.functional.pad(pooled, (0, states.shape[1] - len(pooled)))[None], states[1:]])

    def unconditional(self) -> Tensor:
        states = self.encode("")
        return torch.zeros_like(states) if self._zeros else states

    def inputs(self, states: Tensor, dtype: torch.dtype) -> tuple[Tensor, dict[str, Any]]:
        # All zeros are no prompt, in the start mark's row too.
        told = (states.abs().amax(dim=(1, 2)) > 0).to(states)
        start = (told[:, None] * self._start)[:, None]
        sizes = self._sizes.to(self.device, dtype).expand(len(states), -1)
        added = {"text_embeds": states[:, 0, : self._width].to(dtype), "time_ids": sizes}
        return torch.cat([start, states[:, 1:]], dim=1).to(dtype), {"added_cond_kwargs": added}

    @torch.no_grad()
    def _encode_both(self, prompt: str) -> tuple[Tensor, Tensor]:
        """States [L, d] and the pooled state in fp32."""
        first, second = (
            encoder(self._tokens(prompt, which), output_hidden_states=True)
            for which, encoder in enumerate(self.encoders)
        )
        states = torch.cat([out.hidden_states[-2][0] for out in (first, second)], dim=-1)
        return states.float(), second.text_embeds[0].float()


def _freeze(network: nn.Module, device: torch.device) -> nn.Module:
    return network.to(device).eval().requires_grad_(False)
