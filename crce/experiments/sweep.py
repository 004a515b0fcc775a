"""Choosing presets: every method with several settings on concepts outside the tables, and a rule that picks one.

The rule (`choose`), written before the first run:

1. Over all concepts together, a setting erases if Acc_U is at most 5 %, by the judge's first guess.
2. Of those that erase, take the ones whose mean H is within a point of the highest, for less is noise.
3. Of these, the one with the least drift: the share of the target's pictures that are unlike every drawing, plus how
   far the retains' pictures moved. Then the one that trains less (steps × rate; for a closed form the larger λ).

If no setting erases, the one with the lowest Acc_U is taken, and said to erase too little.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from crce import bases
from crce.catalogue import CLOSED_FORM, METHOD_FACTS
from crce.config import EraseConfig, ResolvedConfig, config_from_dict, resolve_config
from crce.errors import CrceError
from crce.evaluation.accuracies import are_strict
from crce.evaluation.report import Report, read_report
from crce.experiments.tables import JobEvent, find_reports, measure
from crce.files import RESULTS
from crce.runs import Job

SWEEPS = RESULTS / "sweeps"
LEAST = 6  # settings of each method: fewer are no choice
ERASED = 0.05  # Acc_U up to which a setting erases
NEAR = 0.01  # of the highest H: no worse
RATES = (1 / 3, 1.0, 3.0)  # times the preset's
STEPS = (0.5, 1.0)  # times the preset's
DAMPINGS = (1 / 30, 1 / 10, 1 / 3, 1.0, 3.0, 10.0)  # times the closed form's λ
MACE_DAMPINGS = (10.0, 100.0, 1000.0)  # the paper's
# All but a closed form without a λ, of which nothing can be set.
SWEPT = tuple(key for key, facts in METHOD_FACTS.items() if facts.damped or facts.kind != CLOSED_FORM)


@dataclass(frozen=True)
class Grid:
    """Values to try instead of the default ones around the preset; an empty tuple leaves these."""

    steps: tuple[int, ...] = ()
    lr: tuple[float, ...] = ()
    damping: tuple[float, ...] = ()


@dataclass(frozen=True)
class Choice:
    """A method's setting that the rule picks, with its reports. erases: whether Acc_U is low enough."""

    method: str
    config: ResolvedConfig
    reports: tuple[Report, ...]
    erases: bool


def list_settings(config: EraseConfig, base: str, grid: Grid = Grid()) -> list[EraseConfig]:
    """The settings of one method that are tried on this base. Raises CrceError for fewer than six, and for a method of
    which nothing can be set."""
    if config.method not in SWEPT:
        raise CrceError(f"{config.label} has nothing to set. Choose other methods.")
    preset = resolve_config(config, base)
    found = [replace(config, **values) for values in _list_values(preset, base, grid)]
    if len(found) < LEAST:
        raise CrceError(f"{config.label} has {len(found)} settings to try; a choice needs at least {LEAST}. "
                        "Give more steps, rates or λ, or none for the default ones.")  # fmt: skip
    return found


def _list_values(preset: ResolvedConfig, base: str, grid: Grid) -> list[dict]:
    if preset.closed_form:
        return [{"damping": damping} for damping in grid.damping or _list_dampings(preset, base)]
    mace = preset.base_method == "mace"
    steps = grid.steps or tuple(max(1, round(preset.steps * factor)) for factor in ((1.0,) if mace else STEPS))
    rates = grid.lr or tuple(float(f"{preset.lr * factor:.1g}") for factor in RATES)
    dampings = grid.damping or (MACE_DAMPINGS if mace else (preset.damping,))
    tried = product(dict.fromkeys(steps), dict.fromkeys(rates), dict.fromkeys(dampings))
    return [{"steps": count, "lr": lr, "damping": damping} for count, lr, damping in tried]


def _list_dampings(preset: ResolvedConfig, base: str) -> list[float]:
    """Around the λ that the closed form has without one being said; SPEED's and CRCE-Null's is 1."""
    usual = 1.0 if preset.method in ("speed", "crce-null") else bases.defaults(base).damping
    return [float(f"{(preset.damping or usual) * factor:.2g}") for factor in DAMPINGS]


def measure_settings(jobs: list[Job], grid: Grid, images: int, folder: Path) -> Iterator[JobEvent]:
    """Runs and evaluates every job (one concept, one method) with every setting, and stores the reports in a folder
    each. Existing reports are not measured again, so a stopped sweep can be continued.

    Yields the runs' events. Raises CrceError for a run that fails, and for fewer than six settings before any run.
    """
    by_place: dict[str, list[Job]] = {}
    for job in jobs:
        for config in list_settings(job.config, job.base, grid):
            place = name_setting(resolve_config(config, job.base))
            by_place.setdefault(place, []).append(replace(job, config=config))
    for place, alike in by_place.items():
        yield from measure(alike, images, folder / place, brief=True)


def name_setting(config: ResolvedConfig) -> str:
    """The name of a setting's folder: "300x0.0003", "damping15" or "50x0.001-damping10"."""
    trained = [] if config.closed_form else [f"{config.steps}x{config.lr:g}"]
    damped = [] if config.damping is None else [f"damping{config.damping:g}"]
    return "-".join([*trained, *damped]) or "preset"


def load_settings(folder: Path = SWEEPS) -> dict[tuple[str, ResolvedConfig], list[Report]]:
    """The reports of a sweep by method and setting, in a fixed order; further concepts and seeds lie together."""
    found: dict[tuple[str, ResolvedConfig], list[Report]] = {}
    for report in map(read_report, find_reports(folder)):
        config = replace(config_from_dict(report.config), seed=0, preview_every=0)
        found.setdefault((config.label, config), []).append(report)
    order = list(METHOD_FACTS)
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0][1].method), item[0][0], str(item[0][1]))))


def choose_all(settings: dict[tuple[str, ResolvedConfig], list[Report]]) -> list[Choice]:
    """The rule's choice for each method that has at least six settings on the same concepts."""
    by_method: dict[str, dict[ResolvedConfig, list[Report]]] = {}
    for (method, config), reports in settings.items():
        by_method.setdefault(method, {})[config] = reports
    alike = {method: _on_most_concepts(tried) for method, tried in by_method.items()}
    return [choose(method, tried) for method, tried in alike.items() if tried]


def _on_most_concepts(tried: dict[ResolvedConfig, list[Report]]) -> dict[ResolvedConfig, list[Report]]:
    """The settings with the reports on the same concepts, for only these can be compared: on the most concepts on which
    there are six settings. A sweep that goes on, or one more concept for one setting, so takes nothing away."""
    covers = [frozenset(report.concept for report in reports) for reports in tried.values()]
    enough = [cover for cover in covers if sum(cover <= other for other in covers) >= LEAST]
    if not enough:
        return {}
    shared = max(enough, key=lambda cover: (len(cover), sorted(cover)))
    return {
        config: [report for report in reports if report.concept in shared]
        for (config, reports), cover in zip(tried.items(), covers, strict=True)
        if shared <= cover
    }


def choose(method: str, tried: dict[ResolvedConfig, list[Report]]) -> Choice:
    """The setting that the rule picks (see the module)."""
    erasing = {config: reports for config, reports in tried.items() if pool_acc_u(reports) <= ERASED}
    if not erasing:
        config = min(tried, key=lambda c: (pool_acc_u(tried[c]), -mean_h(tried[c]), _effort(c)))
        return Choice(method, config, tuple(tried[config]), erases=False)
    best = max(map(mean_h, erasing.values()))
    near = [config for config, reports in erasing.items() if mean_h(reports) >= best - NEAR]
    config = min(near, key=lambda c: (mean_drift(tried[c]), _effort(c)))
    return Choice(method, config, tuple(tried[config]), erases=True)


def pool_acc_u(reports: Iterable[Report]) -> float:
    """Acc_U over all pictures of all concepts; strict where all reports have it."""
    reports = list(reports)
    found = [(r.strict if are_strict(reports) else r.metrics)["acc_u"] for r in reports]
    return sum(each.yes for each in found) / sum(each.n for each in found)


def mean_h(reports: list[Report]) -> float:
    """Mean over the concepts; a report without H counts as 0."""
    return sum(report.h or 0.0 for report in reports) / len(reports)


def mean_drift(reports: list[Report]) -> float:
    """Share of the target's pictures unlike every drawing, plus how far the retains' moved (0 … 1); 0 if unknown."""
    return sum((r.drift.unlike or 0.0) + (r.drift.moved or 0.0) for r in reports) / len(reports)


def _effort(config: ResolvedConfig) -> float:
    return config.steps * config.lr if config.lr else -(config.damping or 0.0)


def list_presets(choices: Iterable[Choice]) -> dict[str, object]:
    """What belongs into a base's crce.json: CRCE's steps and rate, which ESD-x strict and CRCE's variants share as in
    the paper; those of every other method that differ; and λ by method where one was tried."""
    chosen = {choice.method: choice.config for choice in choices if choice.method == choice.config.method}
    shared = chosen.pop("crce", None)
    own = {key: c for key, c in chosen.items() if not METHOD_FACTS[key].variant and key != EraseConfig.backbone}
    trained = {key: [c.steps, c.lr] for key, c in own.items() if not c.closed_form}
    ours = [shared.steps, shared.lr] if shared else None
    return {
        **({"erase_steps": shared.steps, "lr": shared.lr} if shared else {}),
        "methods": {key: pair for key, pair in trained.items() if pair != ours},
        "dampings": {key: c.damping for key, c in own.items() if c.damping is not None},
    }
