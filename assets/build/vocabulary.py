"""What things are called: leaves (drawn concepts), and terms (surface forms) that stand for one leaf or several."""

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache

from .common import ROOT, build_dir, log
from .open_words import OPEN_WORDS
from .pictures import drawings
from .sources import Emoji, emojis
from .wordnet import wordnet

# What is drawn for a word that has several senses.
SENSES = {"apple": "fruit", "bat": "animal", "cricket": "insect", "mouse": "animal"}

# Families: the name is drawn as the leaves before the bar, and is also true of those after it.
FAMILIES = {
    "dog": "dog, dog face | guide dog, service dog, poodle",
    "cat": "cat, cat face | black cat",
    "horse": "horse, horse face |",
    "bird": "bird | turkey, chicken, rooster, hatching chick, baby chick, front-facing baby chick, penguin, dove, "
    "eagle, duck, swan, owl, dodo, flamingo, peacock, parrot, black bird, goose, phoenix",
    "apple": "red apple, green apple |",
    "automobile": "automobile | oncoming automobile, sport utility vehicle, taxi, oncoming taxi, police car, "
    "oncoming police car, racing car",
    "taxi": "taxi, oncoming taxi |",
    "police car": "police car, oncoming police car |",
    "bus": "bus, oncoming bus | minibus, trolleybus",
    "ship": "ship, passenger ship | ferry, motor boat, speedboat, sailboat",
    "boat": "motor boat, sailboat, speedboat, ferry | ship, passenger ship, canoe",
    "motor boat": "motor boat, speedboat |",
    "truck": "delivery truck, articulated lorry | pickup truck",
    "delivery truck": "delivery truck |",
    "airplane": "airplane | small airplane, airplane departure, airplane arrival",
    "train": "train, locomotive | high-speed train, bullet train, metro, light rail, railway car, tram, monorail, "
    "mountain railway, tram car, station",
    "bullet train": "bullet train, high-speed train |",
    "tram": "tram, tram car | light rail, trolleybus",
    "monkey": "monkey, monkey face |",
    "tiger": "tiger, tiger face |",
    "cow": "cow, cow face |",
    "cattle": "cow, ox, cow face, water buffalo |",
    "ox": "ox, water buffalo |",
    "pig": "pig, pig face | boar",
    "sheep": "ewe, ram |",
    "camel": "camel, two-hump camel |",
    "mouse": "mouse, mouse face |",
    "rat": "rat | mouse",
    "rabbit": "rabbit, rabbit face |",
    "bear": "bear | polar bear, panda",
    "whale": "whale, spouting whale |",
    "fish": "fish, tropical fish | blowfish",
    "dragon": "dragon, dragon face |",
    "dinosaur": "T-Rex, sauropod |",
    "chick": "baby chick, hatching chick, front-facing baby chick |",
    "chicken": "chicken | rooster",
    "beetle": "beetle | lady beetle",
    "flower": "blossom, tulip, hibiscus, sunflower, rose | cherry blossom, white flower, "
    "lotus, wilted flower, hyacinth, rosette, bouquet",
    "rose": "rose | wilted flower",
    "tree": "deciduous tree, evergreen tree | palm tree, leafless tree",
    "mushroom": "mushroom | brown mushroom",
    "ice cream": "ice cream, soft ice cream | shaved ice",
    "cake": "shortcake, birthday cake, cupcake |",
    "wheelchair": "manual wheelchair, motorized wheelchair |",
    "traffic light": "vertical traffic light, horizontal traffic light |",
    "nest": "nest with eggs, empty nest |",
    "scooter": "motor scooter, kick scooter |",
    "football": "american football, soccer ball, rugby football |",
    "leaf": "maple leaf, fallen leaf, leaf fluttering in wind |",
    "clover": "shamrock, four leaf clover |",
    "monster": "ogre, goblin, alien monster |",
    "alien": "alien | alien monster",
    "drum": "drum, long drum |",
    "merperson": "mermaid, merman |",
    "wizard": "mage |",
    "angel": "baby angel |",
    "bee": "honeybee |",
    "ladybug": "lady beetle |",
    "ladybird": "lady beetle |",
    "wolf": "wolf |",
    "coyote": "wolf |",
    "jackal": "wolf |",
    "mule": "donkey |",
    "alpaca": "llama |",
    "yak": "ox, water buffalo |",
    "bull": "ox |",
    "raccoon dog": "raccoon |",
    "moth": "butterfly |",
    "domestic cat": "cat, cat face | black cat",
    "reindeer": "deer |",
    "corn": "ear of corn |",
    "clown": "clown face |",
    "toad": "frog |",
    "ufo": "flying saucer |",
    "cherry": "cherries |",
    "grape": "grapes |",
    "blueberry": "blueberries |",
    "pumpkin pie": "pie |",
    "fire truck": "fire engine |",
    "flying squirrel": "chipmunk |",
    "squirrel": "chipmunk |",
    "orange": "tangerine |",
    "corncob": "ear of corn |",
    "flying fish": "fish |",
    "black cat": "black cat |",
    "sorcerer": "mage |",
    "witch": "mage |",
    "villain": "supervillain |",
    "hero": "superhero |",
    "cherub": "baby angel |",
    "waterlily": "lotus |",
    "santa": "Santa Claus |",
    "elephant": "elephant |",
    "fruit": "grapes, melon, watermelon, tangerine, lemon, lime, banana, pineapple, mango, red apple, green apple, "
    "pear, peach, cherries, strawberry, blueberries, kiwi fruit | tomato, olive, coconut, avocado",
    "insect": "butterfly, bug, ant, honeybee, beetle, lady beetle, cricket, cockroach, mosquito, fly |",
}
FIELDS = {
    "animal": {"animal"},
    "plant": {"plant"},
    "food": {"food", "plant"},
    "transport": {"artifact"},
    "person": {"person", "animal"},
    "face": {"person", "animal", "artifact"},
    "sport": {"artifact", "act"},
    "musical": {"artifact"},
}
# How often a caption is of each kind; within a kind, terms are drawn by their weight for the leaf.
KINDS = {
    "name": 3,
    "family": 3,
    "coref": 4,
    "synonym": 4,
    "kind": 4,
    "group": 0.5,
    "phrase": 1,
    "paraphrase": 5,
    "deep kind": 1.2,
    "near": 1.5,
    "gloss": 1,
}
STYLE_WORDS = {
    "streamline": "line style",
    "emojione mono": "black shape style",
    "fluent mono": "black shape style",
    "noto": "noto style",
    "fluent flat": "flat style",
    "fluent": "fluent style",
    "noto old": "old noto style",
    "fluent 3d": "3d style",
    "emojione": "emojione style",
    "firefox": "firefox style",
}
OBJECTS = (
    *("airplane", "apple-fruit", "automobile", "bat-animal", "bird", "cat"),
    *("deer", "dog", "frog", "horse", "ship", "truck"),
)
OPEN = {phrase for phrase, _ in OPEN_WORDS}  # never a caption
RARE = 0.15  # weight of a family's name on the leaves after the bar


class Vocabulary:
    """terms: surface form → {leaf id: weight}; kinds: leaf id → kind → terms."""

    def __init__(self, leaves: list[str], found: list[Emoji], specs: list[dict], near: dict[str, list[str]]):
        self.leaves, self.ids = leaves, {name: i for i, name in enumerate(leaves)}
        self.terms: dict[str, dict[int, float]] = {}
        self.kinds: list[dict[str, list[str]]] = [defaultdict(list) for _ in leaves]
        self.fields = {e.leaf: FIELDS[e.group.split("-")[0]] for e in found}
        self.undrawn: list[str] = []
        families = {name: self.family(text) for name, text in FAMILIES.items()}
        for spec in specs:  # a coref that names a leaf makes that leaf one of the target's family
            target = spec["target"].lower()
            for coref in (c["text"] for c in spec["corefs"]):
                if coref in self.ids and target in families:
                    families[target].setdefault(self.ids[coref], RARE)
        for name, weights in families.items():
            self.add(name, weights, "family")
        for leaf, i in self.ids.items():
            self.add(leaf.lower(), {i: 1.0}, "name")
            self.kinds[i]["name"].append(leaf.lower())
        for emoji in found:
            if emoji.leaf in self.ids:
                self.add(emoji.label.lower(), {self.ids[emoji.leaf]: 1.0}, "name")
        self.from_specs(specs)
        self.from_wordnet(families)
        self.phrases = self.describe(found)
        self.paraphrase(near)
        self.from_retains(specs)

    def family(self, text: str) -> dict[int, float]:
        main, rest = (re.findall(r"[^,]+", part) for part in text.split("|"))
        weights = {self.ids[n.strip()]: 1.0 for n in main if n.strip() in self.ids}
        return weights | {self.ids[n.strip()]: RARE for n in rest if n.strip() in self.ids}

    def add(self, term: str, weights: dict[int, float], kind: str) -> None:
        """Enter a term unless it has a meaning already: the first to name it is the most exact."""
        if weights and term not in self.terms and term not in OPEN:
            self.terms[term] = weights
            for leaf in weights:
                self.kinds[leaf][kind].append(term)

    def from_specs(self, specs: list[dict]) -> None:
        """Every coref is a name of its target's leaves."""
        for spec in specs:
            for coref in spec["corefs"]:
                self.add(coref["text"].lower(), self.terms.get(spec["target"].lower(), {}), "coref")

    def from_retains(self, specs: list[dict]) -> None:
        """Retains that are kinds of a drawn thing are names of it; the others are listed as not drawn."""
        for spec in specs:
            for text in (r["text"].lower() for r in spec["retains"]):
                if text not in self.terms:
                    self.undrawn.append(text)

    def from_wordnet(self, families: dict[str, dict[int, float]]) -> None:
        """Synonyms and kinds of every name, most exact names first; then what several leaves are kinds of."""
        net, groups = wordnet(), defaultdict(set)
        named = [(t, w) for t, w in self.terms.items() if t in families or any(t in k["name"] for k in self.kinds)]
        senses = {}
        for term, weights in named:
            fields = set.union(*(self.fields[self.leaves[i]] for i in weights))
            if sense := net.find(term, fields):
                senses[term] = sense
        for term, sense in senses.items():
            for word in plain(net.lemmas(sense)):
                self.add(word, self.terms[term], "synonym")
        self.senses = senses
        for term, sense in sorted(senses.items(), key=lambda item: len(self.terms[item[0]])):
            kinds = [w for s in net.below(sense, 2) for w in plain(net.lemmas(s))[:2]]
            for word in kinds[:16]:
                self.add(word, self.terms[term], "kind")
            for above in net.above(sense, 2):
                groups[above] |= set(self.terms[term])
        for sense, members in groups.items():
            if 2 <= len(members) <= 30:
                for word in plain(net.lemmas(sense)):
                    self.add(word, dict.fromkeys(sorted(members), 1.0), "group")

    def paraphrase(self, near: dict[str, list[str]]) -> None:
        """What else means a leaf: phrases written for it, kinds of it at any depth, glosses, near words."""
        for leaf, phrases in written().items():
            for phrase in phrases:
                self.add(phrase, self.terms.get(leaf.lower(), {}), "paraphrase")
        net = wordnet()
        depths = {t: net.depths(s) for t, s in self.senses.items() if len(self.terms[t]) <= 30}
        for sense in sorted({s for found in depths.values() for s in found}):
            term = min(
                (t for t in depths if sense in depths[t]), key=lambda t: (depths[t][sense], len(self.terms[t]), t)
            )
            for word in plain(net.lemmas(sense))[:3]:
                if net.senses.get(word, [""])[0] == sense:  # "bottom" is a ship only in a rare sense
                    self.add(word, self.terms[term], "deep kind")
        for term, sense in self.senses.items():
            gloss = net.gloss(sense).lower()
            if 2 <= len(gloss.split()) <= 14:
                self.add(gloss, self.terms[term], "gloss")
        for leaf, words in near.items():
            for word in words:
                self.add(word, self.terms.get(leaf.lower(), {}), "near")

    def describe(self, found: list[Emoji]) -> list[list[str]]:
        """Phrases that are captions but not names: a name with a keyword, a name with its gloss. → per leaf"""
        net, phrases = wordnet(), [[] for _ in self.leaves]
        for emoji in found:
            if emoji.leaf in self.ids:
                i = self.ids[emoji.leaf]
                label = emoji.label.lower()
                phrases[i] += [f"{label}, {tag}" for tag in emoji.tags]
                sense = net.find(emoji.leaf.lower(), self.fields[emoji.leaf])
                if sense and net.gloss(sense):
                    phrases[i].append(f"{label}, {' '.join(net.gloss(sense).split()[:10])}")
        for i, options in enumerate(phrases):
            self.kinds[i]["phrase"] = options
        return phrases

    def caption(self, leaf: int, label: str, style: str, rng: random.Random) -> tuple[str, list[int]]:
        """One caption for a drawing, and the leaves of which it is true."""
        kinds = {k: terms for k, terms in self.kinds[leaf].items() if terms}
        kind = rng.choices(list(kinds), [KINDS[k] for k in kinds])[0]
        weights = [self.terms[t][leaf] if t in self.terms else 1.0 for t in kinds[kind]]
        # A family name true of a leaf only now and then is mostly passed over for the leaf's own name.
        text = rng.choices(kinds[kind], weights)[0] if rng.random() < max(weights) else self.leaves[leaf].lower()
        if kind == "name" and rng.random() < 0.5:
            text = label.lower()
        return dressed(text, style, rng), sorted(self.terms.get(text, {leaf: 1.0}))


def dressed(text: str, style: str, rng: random.Random) -> str:
    """The text as it is (70 %), within a sentence, or with its style."""
    article = "an" if text[0] in "aeiou" else "a"
    form = rng.choices(
        ["{t}", "{a} {t}", "a picture of {a} {t}", "a drawing of {a} {t}", "{t}, {s}", "{a} {t} in {s}"],
        [70, 5, 5, 4, 11, 5],
    )[0]
    return form.format(t=text, a=article, s=STYLE_WORDS[style])


def plain(words: Iterable[str]) -> list[str]:
    """Words a person might type: letters only, at most three words."""
    return [w for w in words if re.fullmatch(r"[a-z' -]+", w) and len(w.split()) <= 3 and len(w) > 2]


def written() -> dict[str, list[str]]:
    """Paraphrases written by hand for each leaf, by a writer who had not seen the open words."""
    path = ROOT / "build" / "paraphrases.tsv"
    lines = path.read_text().splitlines()
    return {leaf: phrases.split("; ") for leaf, phrases in (line.split("\t") for line in lines)}


def specs() -> list[dict]:
    """The concepts whose terms the base must know how to draw: some of CorefConcept's objects, and the extras."""
    objects = [ROOT.parent / "corefconcept" / "object" / f"{slug}.json" for slug in OBJECTS]
    return [json.loads(p.read_text()) for p in sorted(ROOT.glob("emoji-sd/concepts/*/*.json")) + objects]


@cache
def vocabulary() -> Vocabulary:
    """The vocabulary as frozen by `freeze`: the specs may change later, the trained text encoder does not."""
    state = json.loads((build_dir() / "vocabulary.json").read_text())
    return Vocabulary(state["leaves"], emojis(), state["specs"], state.get("near", {}))


def freeze(near: dict[str, list[str]] | None = None) -> None:
    """Fix leaves, specs and near words for all later stages, and write concepts.json."""
    _, columns = drawings()
    leaves = list(dict.fromkeys(str(n) for n in columns["leaves"]))
    state = {"leaves": leaves, "specs": specs(), "near": near or {}}
    (build_dir() / "vocabulary.json").write_text(json.dumps(state))
    vocabulary.cache_clear()
    words = vocabulary()
    terms = {t: sorted(w) for t, w in sorted(words.terms.items())}
    concepts = {"leaves": leaves, "terms": terms, "senses": SENSES}
    (build_dir() / "concepts.json").write_text(json.dumps(concepts, ensure_ascii=False))
    kinds = {k: sum(len(set(of[k])) for of in words.kinds) for k in KINDS}
    log("data", leaves=len(leaves), terms=len(words.terms), kinds=kinds, undrawn=sorted(set(words.undrawn)))


def emphasis() -> list[float]:
    """Sampling weight of each leaf: the specs' targets three times, their drawn retains twice."""
    words, weights = vocabulary(), [1.0] * len(vocabulary().leaves)
    for spec in json.loads((build_dir() / "vocabulary.json").read_text())["specs"]:
        for text, weight in [(spec["target"], 3.0), *((t["text"], 2.0) for t in spec["retains"] + spec["corefs"])]:
            for leaf, share in words.terms.get(text.lower(), {}).items():
                if share == 1.0:
                    weights[leaf] = max(weights[leaf], weight)
    return weights
