"""Maps of the cross-attention, as they are and as they are trained on."""

import pytest
import torch

from crce.errors import CrceError
from crce.methods.attention import attention_maps, cross_attention_layers, token_positions
from crce.methods.parameters import keys_values
from crce.models.diffusion import Diffusion


def predicted(model, weights=None, text="dog"):
    x, t = model.noise([0, 1]), torch.tensor([500, 500])
    return model.predict(x, t, model.embed([text, "a cat"]), weights)


def test_every_cross_attention_gives_one_map_that_sums_to_one(tiny_sd):
    with torch.no_grad(), attention_maps(tiny_sd.unet) as maps:
        inside = predicted(tiny_sd)
    layers = cross_attention_layers(tiny_sd.unet)
    assert sorted(m.shape[1] for m in maps) == sorted(layer.heads for layer in layers.values())
    for found in maps:
        assert found.shape[0] == 2 and found.shape[3] == 77
        torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:3]))
    with torch.no_grad():
        assert torch.equal(predicted(tiny_sd), inside)
    assert len(maps) == len(layers), "outside nothing is kept"


def test_the_map_is_the_one_that_the_layer_reads_with(tiny_sd):
    """Probabilities times values, through the output projection, is what the layer gives."""
    (name, layer), *_ = cross_attention_layers(tiny_sd.unet).items()
    x, states = torch.randn(1, 4, layer.to_q.in_features), tiny_sd.embed(["dog"])
    with torch.no_grad(), attention_maps(tiny_sd.unet) as maps:
        given = layer(x, encoder_hidden_states=states)
        values = layer.head_to_batch_dim(layer.to_v(states))
        read = layer.batch_to_head_dim(maps[0].flatten(0, 1) @ values)
        torch.testing.assert_close(layer.to_out[0](read), given)


def test_a_map_sees_the_tuned_weights_and_carries_their_gradient(tiny_sd):
    names = [name for name in keys_values(tiny_sd.unet) if "to_k" in name]
    parameters = dict(tiny_sd.unet.named_parameters())
    tuned = {name: (parameters[name] * 3).detach().requires_grad_() for name in names}
    with attention_maps(tiny_sd.unet) as maps:
        predicted(tiny_sd)
        predicted(tiny_sd, tuned)
    half = len(maps) // 2
    base, changed = maps[:half], maps[half:]
    assert all(not torch.equal(a, b) for a, b in zip(base, changed, strict=True))
    sum(m[..., 1].sum() for m in changed).backward()
    assert all(weight.grad.abs().sum() > 0 for weight in tuned.values())


def test_positions_are_those_of_the_words(tiny_sd):
    model = Diffusion.load(tiny_sd.base, device="cpu")
    assert token_positions(model, "dog", "dog") == [1, 2, 3]
    assert token_positions(model, "a dog", "dog") == [2, 3, 4]
    with pytest.raises(CrceError, match="'cat' does not stand in 'a dog'"):
        token_positions(model, "a dog", "cat")
