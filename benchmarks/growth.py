"""How the cost of a step grows with its terms, and of a run with its concepts, on the default model.

python -m benchmarks.growth          measures, and writes docs/results/growth.json, docs/growth.md and docs/growth.svg
python -m benchmarks.growth --draw   rewrites the page and the plot from the JSON
"""

import argparse
import json
from pathlib import Path
from statistics import median

from jinja2 import Template

from benchmarks.figures import time_call
from benchmarks.machine import describe_machine
from benchmarks.plot import draw_panels, make_panel
from benchmarks.sizes import spec
from crce.config import EraseConfig, resolve_config
from crce.files import DOCS, read_json, write_atomic
from crce.models.diffusion import Diffusion
from crce.training.estimate import try_steps
from crce.training.loop import TrainState, erase_steps, noise_caches, train_once

TERMS = (1, 2, 4, 8, 12, 16, 20)
CONCEPTS = (1, 2, 5, 10, 20)
REPEATS, STEPS = 7, 20
WAYS = {"lean": 1, "fast": 0}  # microbatch size; 0: all
COLOURS = {"lean": "#0b8a72", "fast": "#d6336c", "run": "#6366f1"}
PAGE = Template("""\
# How the cost grows

Measured by `python -m benchmarks.growth` on the default model, {{ machine }}.

![Time and memory against the terms of a step, time against concepts](growth.svg)

Terms: corefs and retains in a step of CRCE, M + N, half of each. Lean: one term at a time through the U-Net; fast: all
terms in one batch. Time per step: median of {{ repeats }}. Memory: bytes that a step keeps for its backward pass.

| M + N | lean, s | fast, s | lean, MB | fast, MB |
|---|---|---|---|---|
{% for row in terms -%}
| {{ row.terms }} | {{ "%.3f"|format(row.lean.seconds) }} | {{ "%.3f"|format(row.fast.seconds) }} \
| {{ "%.1f"|format(row.lean.memory / 1e6) }} | {{ "%.1f"|format(row.fast.memory / 1e6) }} |
{% endfor %}
Concepts in one run with {{ steps }} steps each (M = 5, N = 3), including the sampling of their latents; n = 1.

| concepts | s | s per concept |
|---|---|---|
{% for row in concepts -%}
| {{ row.concepts }} | {{ "%.1f"|format(row.seconds) }} | {{ "%.2f"|format(row.seconds / row.concepts) }} |
{% endfor %}""")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="do not measure")
    parser.add_argument("--most", type=int, default=20, help="the largest number of terms and concepts")
    parser.add_argument("--folder", type=Path, default=DOCS, help="holds growth.md")
    options = parser.parse_args()
    file, page = options.folder / "results" / "growth.json", options.folder / "growth.md"
    if not options.draw:
        write_atomic(file, json.dumps(measure(options.most), indent=1) + "\n")
    found = read_json(file)
    write_atomic(page, PAGE.render(found))
    write_atomic(page.with_suffix(".svg"), draw_panels(make_panels(found)))


def measure(most: int) -> dict:
    model = Diffusion.load()
    return {
        "machine": describe_machine(),
        "repeats": REPEATS,
        "steps": STEPS,
        "terms": [
            {"terms": terms, **{way: measure_step(model, terms, rows) for way, rows in WAYS.items()}}
            for terms in TERMS
            if terms <= most
        ],
        "concepts": [{"concepts": n, "seconds": time_run(model, n)} for n in CONCEPTS if n <= most],
    }


def measure_step(model: Diffusion, terms: int, rows: int) -> dict[str, float]:
    """The seconds of a step, and the bytes that it keeps."""
    corefs = (terms + 1) // 2
    settings = EraseConfig(steps=STEPS, corefs=corefs, retains=terms - corefs, microbatch_size=rows)
    config, concept = resolve_config(settings, model.base), spec("dog", corefs, terms - corefs)
    kept = try_steps(model, (concept,), config).held
    state = TrainState(model, (concept,), config)
    caches = noise_caches(state)
    times = [time_call(lambda: train_once(state, caches)) for _ in range(REPEATS + 1)][1:]
    print(f"M + N = {terms}, {rows or 'all'} at once: {median(times):.3f} s, {kept / 1e6:.1f} MB", flush=True)
    return {"seconds": round(median(times), 4), "memory": kept}


def time_run(model: Diffusion, concepts: int) -> float:
    """The seconds of a run."""
    specs = [spec(f"concept {number}") for number in range(concepts)]
    seconds = time_call(lambda: list(erase_steps(model, specs, EraseConfig(steps=STEPS))))
    print(f"{concepts} concepts: {seconds:.1f} s", flush=True)
    return round(seconds, 2)


def make_panels(found: dict) -> list[dict]:
    """The three plots."""
    terms, concepts = found["terms"], found["concepts"]
    seconds = {way: [(row["terms"], row[way]["seconds"]) for row in terms] for way in WAYS}
    memory = {way: [(row["terms"], row[way]["memory"] / 1e6) for row in terms] for way in WAYS}
    runs = {"run": [(row["concepts"], row["seconds"]) for row in concepts]}
    return [
        make_panel("seconds a step", "M + N", seconds, COLOURS),
        make_panel("MB kept in a step", "M + N", memory, COLOURS),
        make_panel(f"seconds of a run, {found['steps']} steps a concept", "concepts", runs, COLOURS),
    ]


if __name__ == "__main__":
    main()
