"""Attacks the program, counts what held, and writes it to docs/results/reliability.json and docs/reliability.md.

python -m benchmarks.torture                          everything; goes on where it was
python -m benchmarks.torture --only kills --count 20  one attack, up to its twentieth case
python -m benchmarks.torture --again --only damage    from its first case
python -m benchmarks.torture --draw                   writes the page again, without attacking
"""

import argparse
import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

from jinja2 import Template

from benchmarks.machine import describe_machine
from benchmarks.plot import draw_panels, make_panel
from benchmarks.torture.attack import Attack, Outcome, carry_on
from crce.files import DOCS, read_json, write_atomic
from crce.records import parse

SAVE_EVERY = 5.0  # seconds; a kill costs no more than this


def attacks() -> dict[str, Attack]:
    """By name. Imported when they are needed: those that train import torch."""
    from benchmarks.torture import damage, full_disk, inputs, kills, visitors

    return {
        "kills": Attack(
            "Killed while training", "bit-identical to an undisturbed run, nothing left behind", 120, 1,
            kills.open_kills,
        ),
        "inputs": Attack("Hostile inputs", "understood, or one clear error", 10_000, 300, inputs.open_inputs),
        "damage": Attack(
            "Damaged files", "every list and every other run stay; a damaged run can be deleted", 600, 24,
            damage.open_damage,
        ),
        "disk": Attack(
            "Full disk", "a clear message, and the same result once there is room", 10, 2, full_disk.open_disks
        ),
        "visitors": Attack(
            f"{visitors.VISITORS} visitors while a run trains, by the minute",
            f"95 of 100 clicks in at most {1000 * visitors.LIMIT:.0f} ms, no question without an answer", 10, 0,
            visitors.open_visitors, visitors.MEMORY,
        ),
    }  # fmt: skip


PAGE = Template(
    """\
# What it withstands

`make torture` attacks the program with seeded cases and writes this page from `docs/results/reliability.json`. It goes
on where it was; `python -m benchmarks.torture --only NAME --count N` does a part. `make test` does a small share.

| attack | promise | cases | held | |
|---|---|---|---|---|
{% for name, attack in attacks.items() -%}
{% set found = outcomes.get(name) -%}
| {{ attack.title }} (`{{ name }}`) | {{ attack.promise }} | {{ found.done if found else 0 }} of {{ attack.cases }} | \
{{ found.done - found.faults|length if found else "–" }} | \
{{ "%s, %s"|format(found.date, found.machine) if found else "not run yet" }} |
{% endfor %}
{% for name, attack in attacks.items() if outcomes.get(name) and tells(outcomes[name]) -%}
{% set found = outcomes[name] -%}
## {{ attack.title }}

{% for what, count in found.met|dictsort if listed(what, found.met) -%}
- {{ what }}: {{ "%g"|format(count) }}
{% endfor -%}
{% if attack.plot %}
![{{ attack.plot }}](reliability.svg)
{% endif -%}
{% if found.faults %}
What did not hold, by kind:

{% for what, numbers in group(found.faults).items() -%}
- {{ what }} ({{ numbers|length }}, first case {{ numbers[0] }})
{% endfor %}{% endif %}
{% endfor -%}
{{ faults }}""",
    trim_blocks=False,
)
FAULTS = Path(__file__).with_name("faults.md")  # and the tests that show them
MOST_LINES = 40  # of what an attack met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="kills, inputs, damage, disk or visitors, with commas between them")
    parser.add_argument("--count", type=int, help="cases of each, in place of all")
    parser.add_argument("--again", action="store_true", help="from the first case")
    parser.add_argument("--draw", action="store_true", help="do not attack")
    parser.add_argument("--folder", type=Path, default=DOCS, help="holds reliability.md")
    options = parser.parse_args()
    known = attacks()
    chosen = [name for name in options.only.split(",") if name] or list(known)
    if unknown := set(chosen) - set(known):
        parser.error(f"there is no attack {', '.join(unknown)}; there are {', '.join(known)}")
    for name in () if options.draw else chosen:
        run(name, known[name], options.count or known[name].cases, options.folder, options.again)
    draw(options.folder)


def run(name: str, attack: Attack, until: int, folder: Path, again: bool = False) -> Outcome:
    """Goes on with an attack up to case `until`, and keeps what it found."""
    file = folder / "results" / "reliability.json"
    before = Outcome() if again else read(file).get(name, Outcome())
    print(f"{attack.title}: {before.done} of {until} done", flush=True)
    outcome, saved = before, time.monotonic()
    for outcome in carry_on(attack, before, until) if before.done < until else ():
        machine = f"{describe_machine()}, load {os.getloadavg()[0]:.0f}"
        outcome = replace(outcome, machine=machine, date=time.strftime("%F"))
        if time.monotonic() - saved > SAVE_EVERY or outcome.done == until:
            saved = time.monotonic()
            write_atomic(file, json.dumps({**_read(file), name: asdict(outcome)}, indent=1, ensure_ascii=False) + "\n")
            print(f"  {outcome.done} of {until}, {len(outcome.faults)} did not hold", flush=True)
    return outcome


def read(file: Path) -> dict[str, Outcome]:
    return {name: parse(Outcome, facts, str(file)) for name, facts in _read(file).items()}


def _read(file: Path) -> dict:
    return read_json(file) if file.exists() else {}


def draw(folder: Path) -> None:
    outcomes = read(folder / "results" / "reliability.json")
    faults = FAULTS.read_text(encoding="utf-8")
    page = PAGE.render(attacks=attacks(), outcomes=outcomes, group=group, listed=listed, tells=tells, faults=faults)
    write_atomic(folder / "reliability.md", page)
    panels = [
        plot(attack.plot, outcomes[name]) for name, attack in attacks().items() if attack.plot and name in outcomes
    ]
    if panels:
        write_atomic(folder / "reliability.svg", draw_panels(panels))


def plot(what: str, found: Outcome) -> dict:
    """What the cases counted, one after the other."""
    values = [value for key, value in sorted(found.met.items()) if key.startswith(what)]
    line = [(float(case), value) for case, value in enumerate(values, 1)]
    return make_panel(f"{what} …, MB", "", {"": line}, {"": "#6366f1"})


def listed(what: str, met: dict[str, float]) -> bool:
    """Not the cases of an attack that has hundreds of kinds."""
    return len(met) <= MOST_LINES


def tells(found: Outcome) -> bool:
    """Whether there is more to say than how many held."""
    return bool(found.faults) or any(listed(what, found.met) for what in found.met)


def group(faults: dict[str, str]) -> dict[str, list[str]]:
    """The numbers of the cases by what went wrong; numbers and names in it do not tell kinds apart."""
    found: dict[str, list[str]] = {}
    for number, what in faults.items():
        found.setdefault(what[:100], []).append(number)
    return dict(sorted(found.items(), key=lambda item: -len(item[1]))[:20])


if __name__ == "__main__":
    main()
