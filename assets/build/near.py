"""Words near a drawn thing in the teacher's space: what else should draw it."""

import torch

from . import language
from .vocabulary import Vocabulary, freeze, vocabulary
from .wordnet import wordnet

LEAST, MARGIN, MOST = 0.66, 0.04, 12  # cosine to the thing; lead over any other; words a thing


def fits(words: Vocabulary, word: str, leaf: int) -> bool:
    """Whether the word's commonest sense is of the leaf's field: "bur" is near "dog", but no animal."""
    net = wordnet()
    return net.synsets[net.senses[word][0]][0] in words.fields[words.leaves[leaf]]


def named(words: Vocabulary) -> tuple[list[str], list[int]]:
    """The surest names of every leaf, and whose they are: its own name and exact synonyms."""
    pairs = [(leaf.lower(), i) for i, leaf in enumerate(words.leaves)]
    pairs += [
        (t, next(iter(w))) for t, w in words.terms.items() if len(w) == 1 and t in words.kinds[next(iter(w))]["synonym"]
    ]
    return [t for t, _ in pairs], [i for _, i in pairs]


def near() -> dict[str, list[str]]:
    """The nearest words of each leaf, nearest first, none of which is a name of another thing already."""
    words = vocabulary()
    texts, vectors = language.lessons()["word"]
    names, owners = named(words)
    owner = torch.tensor(owners)
    cosine = vectors @ language.meaning(names).T
    by_leaf = torch.full((len(texts), len(words.leaves)), -1.0)
    by_leaf.scatter_reduce_(1, owner.expand(len(texts), -1), cosine, "amax")
    families = [
        {i, *(j for w in words.terms.values() if i in w and len(w) <= 4 for j in w)} for i in range(len(words.leaves))
    ]
    best, leaf = by_leaf.max(1)
    found: dict[str, list[str]] = {}
    for k in best.argsort(descending=True).tolist():
        i = int(leaf[k])
        if best[k] < LEAST:
            break
        others = by_leaf[k].clone()
        others[list(families[i])] = -1
        name = words.leaves[i]
        if best[k] - others.max() >= MARGIN and fits(words, texts[k], i) and len(found.get(name, [])) < MOST:
            found.setdefault(name, []).append(texts[k])
    return found


def make() -> None:
    freeze(near())
