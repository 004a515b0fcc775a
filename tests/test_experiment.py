"""Tables: measured once, kept as reports, written from them."""

import dataclasses

import pytest

from crce.catalogue import METHOD_FACTS
from crce.concepts.library import load_spec, save_spec
from crce.config import EraseConfig, ResolvedConfig, resolve_config
from crce.errors import CrceError
from crce.evaluation.report import Accuracy, Drift, Report
from crce.experiments import studies, sweep
from crce.experiments.tables import (
    TABLE_METHODS,
    check_reports,
    insert_table,
    load_reports,
    measure,
    render,
    write_table,
)
from crce.files import read_json, write_json
from crce.methods.registry import method_of
from crce.runs import Job

METHODS = list(TABLE_METHODS)
SHORT = EraseConfig(steps=2, lr=1e-3, corefs=1, retains=1, preview_every=0)


@pytest.fixture
def measured(tiny_sd_dir, dog, tmp_path):
    """Two concepts × two methods on the tiny model."""
    cat = dataclasses.replace(dog, target="cat", sense="", retains=(dog.retains[1], dog.retains[3]))
    for spec in (dog, cat):
        save_spec(spec, tmp_path / f"{spec.target}.json")

    def start(methods, seeds=(0,), backbone="esd-x-strict", out=tmp_path / "reports"):
        specs = [load_spec(tmp_path / f"{name}.json") for name in ("dog", "cat")]
        configs = [dataclasses.replace(SHORT, method=m, seed=s, backbone=backbone) for m in methods for s in seeds]
        return measure([Job(str(tiny_sd_dir), s, c) for s in specs for c in configs], 1, out)

    def run(*arguments, **more):
        return list(start(*arguments, **more))

    run.start = start
    return run, tmp_path / "reports"


def test_every_method_on_every_concept_once(measured):
    run, folder = measured
    run(["crce"])
    kept = read_json(folder / "cat-crce-seed-0.json")
    assert {(e.concept, e.method) for e in run(["crce", "esd-x-strict"])} == {
        ("dog (animal)", "esd-x-strict"),
        ("cat", "esd-x-strict"),
    }
    assert sorted(p.name for p in folder.iterdir()) == [
        f"{c}-{m}-seed-0.json" for c in ("cat", "dog-animal-a23f0f72") for m in ("crce", "esd-x-strict")
    ]
    assert read_json(folder / "cat-crce-seed-0.json") == kept
    assert [r.method for r in load_reports(folder)] == ["esd-x-strict"] * 2 + ["crce"] * 2


def test_the_rendered_table_is_put_between_its_marks(measured, tmp_path):
    run, folder = measured
    run(METHODS)
    readme = tmp_path / "README.md"
    readme.write_text("above\n<!-- table: python -m crce table -->\nformer words\n<!-- /table -->\nbelow\n")
    write_table(readme, folder)
    text = readme.read_text()
    assert text.startswith("above\n") and text.endswith("below\n") and "former words" not in text
    assert "| base |" in text and "Mean over 2 concepts (cat, dog (animal))" in text
    compared = [line.split(" | ")[0] for line in text.splitlines() if " − " in line.split(" | ")[0]]
    assert compared == ["| crce − esd-x-strict", "| crce − crce-sphere", "| crce − crce-fixed",
                        "| crce-plus − crce", "| crce-plus − esd-x-strict"]  # fmt: skip
    assert insert_table(text, render(load_reports(folder))) == text


def test_seeds_have_reports_of_their_own_and_a_stopped_measurement_goes_on(measured):
    run, folder = measured
    events = run(["crce", "esd-x-strict"], seeds=(0, 1))
    assert {e.concept for e in events} == {"cat", "dog (animal)"}
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"{c}-{m}-seed-{s}.json" for c in ("cat", "dog-animal-a23f0f72") for m in ("crce", "esd-x-strict")
                     for s in (0, 1)]  # fmt: skip
    found = load_reports(folder)
    assert [(r.method, r.config["seed"]) for r in found[:2]] == [("esd-x-strict", 0), ("esd-x-strict", 1)]
    text = render(found)
    assert "Mean over 2 concepts (cat, dog (animal)) and 2 training seeds each, in %" in text
    assert "paired by concept and seed" in text and "first guess" in text
    kept = {name: (folder / name).read_bytes() for name in names}
    (folder / names[-1]).unlink()
    stopped = run.start(["crce", "esd-x-strict"], seeds=(0, 1))
    next(event for event in stopped if event.event.kind == "step")
    stopped.close()
    assert (folder / f".{names[-1].removesuffix('.json')}").is_dir()
    run(["crce", "esd-x-strict"], seeds=(0, 1))
    assert sorted(path.name for path in folder.iterdir()) == names
    assert {name: (folder / name).read_bytes() for name in names[:-1]} == {name: kept[name] for name in names[:-1]}
    assert max(map(len, kept.values())) < 30_000


def test_every_method_is_compared_where_all_were_measured(measured):
    run, folder = measured
    run([*METHODS, "uce", "crce-uce"])
    (folder / "dog-animal-a23f0f72-uce-seed-0.json").unlink()
    assert "Every method" not in render([r for r in load_reports(folder) if r.method in METHODS])
    with pytest.raises(CrceError, match="at least 2"):
        render(load_reports(folder))
    run(["uce"])
    found = load_reports(folder)
    assert found[-1].method == "uce"
    costs = {"concept": "dog", "machine": "a machine", "methods": {"uce": 0.25}}
    (row,) = [line for line in render(found, costs).splitlines() if line.startswith("| uce |")]
    assert "| crce-uce − crce |" in render(found)
    assert row.endswith(" | 0.2 |") and "over 2 of these concepts (cat, dog (animal))" in render(found, costs)


def test_a_method_on_fewer_concepts_shrinks_no_table(measured):
    run, folder = measured
    run([*METHODS, "uce", "crce-uce", "speed"])
    before = render(load_reports(folder))
    (folder / "cat-speed-seed-0.json").unlink()
    after = render(load_reports(folder))
    assert "| speed |" in before and "| speed |" not in after and "over 2 of these concepts" in after
    (missing,) = [line for line in after.splitlines() if line.startswith("Every method")]
    assert "(not measured on all of them: " in missing and ", speed, " in missing


def test_a_sweep_has_a_row_for_each_setting(measured):
    run, folder = measured
    run(["crce"])
    found = [read_json(path) for path in folder.glob("*.json")]
    yes, n = (sum(r["strict"]["acc_c_test"][part] for r in found) for part in ("yes", "n"))
    page = studies.SWEEPS_PAGE.replace("{chosen}", studies.render_choices(folder))
    assert "No method has six settings here yet." in page
    (row,) = [line for line in studies.render_sweep(folder, page).splitlines() if line.startswith("| crce |")]
    assert row.startswith("| crce | 0.001 | 2 |") and row.split(" | ")[5] == f"{yes}/{n}"


def test_a_backbone_has_a_row_alone_and_one_with_corefs_and_retains(measured):
    """CRCE on another backbone has reports of its own beside CRCE's; a page compares what both were measured on."""
    run, folder = measured
    run(["esd-x-strict", "crce", "ca"])
    run(["crce"], seeds=(1,), backbone="ca")
    assert (folder / "cat-crce-on-ca-seed-1.json").exists()
    backbones = folder.with_name("backbones")
    run(["crce"], backbone="ca", out=backbones)
    page = studies.render_backbones(backbones, folder)
    rows = [line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if line.startswith("| ")]
    names = ["base", "esd-x-strict", "crce", "ca", "crce on ca", "crce − esd-x-strict", "crce on ca − ca"]
    assert [row for row in rows if row != "|"] == names
    assert "over cat, dog (animal), training seed 0" in page


def test_methods_are_compared_on_the_seeds_that_all_have(measured):
    run, folder = measured
    run(METHODS, seeds=(0, 1))
    run(["uce"])
    every = render(load_reports(folder)).split("Every method")[1]
    assert every.startswith(" over 2 of these concepts (cat, dog (animal)) in %") and "one run each" in every


def test_no_table_is_written_from_reports_of_another_version_of_the_base(measured):
    run, folder = measured
    run(["uce"])
    check_reports(folder.parent)
    path = folder / "cat-uce-seed-0.json"
    write_json(path, {**read_json(path), "base_digest": 64 * "0"})
    with pytest.raises(CrceError, match="reports/cat-uce-seed-0.json belongs to another version of .* .00000000."):
        check_reports(folder.parent)


def test_a_text_without_a_place_is_refused():
    with pytest.raises(CrceError, match="no markers for the table"):
        insert_table("nothing here", "table")


def test_a_measurement_that_fails_names_concept_and_method(measured, tmp_path):
    run, _ = measured
    write_json(tmp_path / "cat.json", {**read_json(tmp_path / "cat.json"), "target": "yeti"})
    with pytest.raises(CrceError, match="yeti with crce: .*The judge of this base does not know"):
        run(["crce"])


def test_a_sweep_tries_six_settings_and_chooses(tiny_sd_dir, dog, tmp_path):
    """A stopped one goes on, and its page has each setting and the choice."""
    save_spec(dog, tmp_path / "dog.json")
    job = Job(str(tiny_sd_dir), load_spec(tmp_path / "dog.json"), EraseConfig("crce-uce", preview_every=0))
    folder = tmp_path / "sweeps"
    assert len(list(sweep.measure_settings([job], sweep.Grid(), 1, folder))) > 0
    assert len(list(folder.iterdir())) == 6 and list(sweep.measure_settings([job], sweep.Grid(), 1, folder)) == []
    write_json(next(folder.iterdir()) / ".cat-crce-seed-0" / "job.json", {})  # of a sweep that goes on
    (choice,) = sweep.choose_all(sweep.load_settings(folder))
    preset = sweep.list_presets([choice])
    assert preset["methods"] == {} and preset["dampings"] == {"crce-uce": choice.config.damping}
    page = studies.render_sweep(folder, studies.SWEEPS_PAGE.replace("{chosen}", studies.render_choices(folder)))
    assert page.count(f"| crce-uce | –, λ {choice.config.damping:g} | 1 |") == 2 and page.count("| crce-uce |") == 7


@pytest.mark.parametrize("method", sweep.SWEPT)
def test_every_method_has_six_settings_around_its_preset(tiny_sd_dir, method):
    settings = sweep.list_settings(EraseConfig(method), str(tiny_sd_dir))
    resolved = {resolve_config(config, str(tiny_sd_dir)) for config in settings}
    assert len(resolved) == len(settings) >= 6
    assert len({sweep.name_setting(config) for config in resolved}) == len(resolved)
    if method == "mace":
        assert {config.damping for config in settings} == {10, 100, 1000}


def test_a_method_without_settings_takes_none(tiny_sd_dir, dog):
    assert set(METHOD_FACTS) - set(sweep.SWEPT) == {"uce-published"}
    config = EraseConfig("uce-published", damping=5.0)
    with pytest.raises(CrceError, match="uce-published has nothing to set"):
        sweep.list_settings(config, str(tiny_sd_dir))
    with pytest.raises(CrceError, match="damping is 5, and uce-published has none"):
        method_of(config)


def test_one_more_concept_for_one_setting_takes_no_choice_away():
    found = settings_of((0.1, 0.0, 0.8, 0.1), (0.2, 0.0, 0.9, 0.1))
    extra = dataclasses.replace(found["crce", ResolvedConfig(steps=100, lr=0.1)][0], concept="cat")
    more = {key: [*reports, extra] if key[1].lr == 0.1 else reports for key, reports in found.items()}
    assert sweep.choose_all(more) == sweep.choose_all(found) != []


def test_fewer_than_six_settings_are_refused(tiny_sd_dir):
    with pytest.raises(CrceError, match="crce has 3 settings to try"):
        sweep.list_settings(EraseConfig(), str(tiny_sd_dir), sweep.Grid((5,), (1e-3, 2e-3, 3e-3)))


def settings_of(*facts):
    """Six settings of CRCE, the named ones first: (rate, Acc_U, H, drift) on one concept."""
    rest = [(1e-9 * (1 + i), 0.9, 0.1, 0.9) for i in range(6 - len(facts))]
    found = {}
    for lr, acc_u, h, drift in (*facts, *rest):
        accuracy = Accuracy(round(100 * acc_u), 100, acc_u, 0, 1, 1, None)
        report = Report({"acc_u": accuracy}, {"acc_u": accuracy}, "dog", h=h, drift=Drift(drift / 2, 0, drift / 2))
        found["crce", ResolvedConfig(steps=100, lr=lr)] = [report]
    return found


@pytest.mark.parametrize(
    ("facts", "chosen", "erases"),
    [
        ([(1e-4, 0.06, 0.99, 0.0), (1e-3, 0.05, 0.80, 0.9)], 1e-3, True),  # only what erases
        ([(1e-4, 0.05, 0.80, 0.0), (1e-3, 0.0, 0.90, 0.9)], 1e-3, True),  # the highest H
        ([(1e-3, 0.0, 0.90, 0.9), (1e-2, 0.05, 0.895, 0.5)], 1e-2, True),  # within a point, the least drift
        ([(1e-3, 0.0, 0.90, 0.5), (1e-2, 0.0, 0.90, 0.5)], 1e-3, True),  # then the least training
        ([(1e-4, 0.3, 0.9, 0.0), (1e-3, 0.2, 0.5, 0.9)], 1e-3, False),  # none erases: the lowest Acc_U
    ],
)
def test_the_rule(facts, chosen, erases):
    (choice,) = sweep.choose_all(settings_of(*facts))
    assert (choice.config.lr, choice.erases) == (chosen, erases)


def test_what_was_not_measured_on_every_concept_is_not_chosen():
    settings = settings_of((1e-3, 0.0, 0.90, 0.5), (1e-2, 0.0, 0.95, 0.5))
    more = {key: [*reports, dataclasses.replace(reports[0], concept="cat")] for key, reports in settings.items()}
    more["crce", ResolvedConfig(steps=100, lr=1e-2)].pop()
    (choice,) = sweep.choose_all(more)  # six settings are on one concept, five on both
    assert choice.config.lr == 1e-2 and [r.concept for r in choice.reports] == ["dog"]
    more["crce", ResolvedConfig(steps=200, lr=1e-3)] = more["crce", ResolvedConfig(steps=100, lr=1e-3)]
    assert sweep.choose_all(more)[0].config.lr == 1e-3


def test_presets_of_variants_and_of_their_backbone_are_crces(tiny_sd_dir):
    configs = [
        EraseConfig("crce", 10, 1e-3), EraseConfig("esd-x-strict", 20, 1e-4), EraseConfig("crce-fixed", 5, 1e-4),
        EraseConfig("salun", 7, 1e-4), EraseConfig("esd-x", 10, 1e-3), EraseConfig("mace", 5, 1e-3, damping=10),
    ]  # fmt: skip
    choices = [sweep.Choice(c.label, resolve_config(c, str(tiny_sd_dir)), (), True) for c in configs]
    assert sweep.list_presets(choices) == {
        "erase_steps": 10, "lr": 1e-3, "methods": {"salun": [7, 1e-4], "mace": [5, 1e-3]}, "dampings": {"mace": 10}
    }  # fmt: skip
