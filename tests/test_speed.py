"""SPEED and CRCE-Null by their defining properties: the best edit among those that leave alone what must stay."""

import dataclasses

import pytest
import torch

from crce.concepts.library import bundled
from crce.concepts.spec import Term
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.methods.parameters import values
from crce.methods.speed import NEGLIGIBLE, _edit_in_null_space, _free_directions, _most_changed
from crce.methods.uce import EditStates
from crce.models.diffusion import Diffusion
from crce.training.loop import solve_closed_form

WIDTH = 24


@pytest.fixture
def states():
    """Three states to move and six that stay, linearly independent, as long as those of a text encoder."""
    rng = torch.Generator().manual_seed(0)
    c, g, r = (torch.randn(n, WIDTH, generator=rng) for n in (3, 3, 6))
    return EditStates(c, g, torch.tensor([1.0, 0.6, 0.2]), r, torch.ones(6))


@pytest.fixture
def w():
    return torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(1))


def edited(w, states, kept):
    return _edit_in_null_space({"w": w}, states, 1.0, _free_directions(kept, kept[:0]))["w"]


def test_what_must_stay_stays_to_1e_4_and_the_rest_moves(w, states):
    after = edited(w, states, states.r)
    assert ((after - w) @ states.r.T).abs().max() < 1e-4
    before = (w @ (states.c - states.g).T).norm(dim=0)
    assert ((after @ states.c.T - w @ states.g.T).norm(dim=0) < before).all()


def test_no_other_edit_that_spares_what_must_stay_is_better(w, states):
    """The constrained least squares that the docstring names, minimised here by gradient in fp64."""
    free = _free_directions(states.r, states.r[:0]).double()
    c, g, alpha, w64 = (
        states.c.double(),
        states.g.double(),
        states.alpha.double() / states.alpha.sum(),
        w.double(),
    )

    def loss(delta):
        return (alpha * ((w64 + delta @ free) @ c.T - w64 @ g.T).square().sum(0)).sum() + (delta @ free).square().sum()

    delta = torch.zeros_like(w64, requires_grad=True)
    search = torch.optim.LBFGS([delta], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def step():
        search.zero_grad()
        value = loss(delta)
        value.backward()
        return value

    search.step(step)
    found = edited(w, states, states.r).double() - w64
    torch.testing.assert_close(found, (delta @ free).detach(), atol=1e-4, rtol=0)


def test_it_is_the_published_formula(w, states):
    """Δ = W (A − T) P [I − M K (Kᵀ P M K)⁻¹ Kᵀ P] M with M = (T P + I)⁻¹, in fp64; K are the shared states."""
    kept, shared = states.r[:4], states.r[4:]
    c, g, w64 = states.c.double(), states.g.double(), w.double()
    alpha = (states.alpha / states.alpha.sum()).double()
    t, a, eye = (c.T * alpha) @ c, (g.T * alpha) @ c, torch.eye(WIDTH).double()
    p, k = _free_directions(kept, shared[:0]).double(), shared.double().T
    m = (t @ p + eye).inverse()
    delta = w64 @ (a - t) @ p @ (eye - m @ k @ (k.T @ p @ m @ k).inverse() @ k.T @ p) @ m
    after = _edit_in_null_space({"w": w}, states, 1.0, _free_directions(kept, shared))["w"]
    torch.testing.assert_close(after.double() - w64, delta, atol=1e-4, rtol=0)


def test_a_direction_of_next_to_no_size_is_free():
    kept = torch.zeros(1, 3)
    kept[0, 0], kept[0, 1] = 1.0, (0.9 * NEGLIGIBLE) ** 0.5
    lone = torch.stack([kept[0] * torch.tensor([1.0, 0, 0]), kept[0] * torch.tensor([0, 1.0, 0])]) * 2**0.5
    torch.testing.assert_close(_free_directions(lone, lone[:0]), torch.diag(torch.tensor([0.0, 1, 1])))
    torch.testing.assert_close(_free_directions(lone, lone[1:]), torch.diag(torch.tensor([0.0, 0, 1])))


def test_the_filter_keeps_what_the_bare_edit_would_change_most(w, states):
    near, far = states.c[:1] * 0.9, torch.linalg.qr(states.c.T, mode="complete")[0][:, -2:].T
    found = _most_changed(w, dataclasses.replace(states, r=torch.cat([far, near]), beta=torch.ones(3)), 1.0)
    assert torch.equal(found, near)


def test_protection_that_leaves_nothing_to_edit_says_so(w, states):
    with pytest.raises(CrceError, match="Remove some retains"):
        edited(w, states, torch.cat([states.r, states.c]))


def test_a_real_retain_stays_and_the_target_moves(tiny_sd, dog):
    """On the words of every training retain, and on what every prompt shares, V gives what it gave."""
    weights = dict(tiny_sd.unet.named_parameters())
    delta = solve_closed_form(tiny_sd, dog, EraseConfig("crce-null"))
    for name in values(tiny_sd.unet):
        change = delta.tensors[name] - weights[name]
        for term in dog.train_retains:
            states = tiny_sd.embed([term.text])[0, : len(tiny_sd.tokenizer(term.text).input_ids)]
            assert (states @ change.T).abs().max() < 1e-4
        assert (tiny_sd.embed(["dog"])[0, 1:] @ change.T).abs().max() > 1e-2


def test_corefs_count_by_certainty_and_test_terms_do_not(tiny_sd, dog):
    def differs(spec):
        a, b = (solve_closed_form(tiny_sd, s, EraseConfig("crce-null")).tensors for s in (dog, spec))
        return any(not torch.equal(a[n], b[n]) for n in a)

    first, *others = dog.corefs
    assert not differs(dataclasses.replace(dog, corefs=(*dog.corefs, Term("mutt", split="test"))))
    assert differs(dataclasses.replace(dog, corefs=(dataclasses.replace(first, certainty="low"), *others)))
    assert differs(dataclasses.replace(dog, retains=()))


def test_speed_keeps_the_bundled_concepts_but_what_goes_and_what_is_hidden(tiny_sd, dog):
    model = Diffusion.load(tiny_sd.base, device="cpu")
    spec = dataclasses.replace(dog, corefs=(Term("deer"),), retains=(Term("frog", split="test"), Term("cat")))
    solve_closed_form(model, spec, EraseConfig("speed"))
    seen = set(model._states) - {"", "dog"}
    # Nor are kinds among them: to keep "boat" would be to keep a ship.
    kinds = {"boat", "flower", "fruit", "insect"}
    assert seen == {s.target for s in bundled().values()} - {"dog", "deer", "frog"} - kinds and "cat" in seen
