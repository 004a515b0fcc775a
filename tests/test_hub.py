"""Publishing against a Hub on loopback: one commit, nothing lost, and errors that say what to do."""

import gzip
import io
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from fastapi.responses import RedirectResponse, Response
from huggingface_hub import HfApi, ModelCard
from PIL import Image
from safetensors.numpy import load, load_file, save_file

from crce import bases, runs
from crce.concepts import changelog, dataset, library
from crce.concepts.spec import spec_from_dict
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.evaluation.questions import Answers
from crce.evaluation.report import Accuracy, Report, write_report
from crce.files import ROOT
from crce.publishing import base_files, before_after, export, hub
from crce.publishing.cards import weights_card
from crce.publishing.hub import Hub
from crce.runs import Job
from crce.runs.events import PreviewEvent
from crce.runs.execute import picture_name
from tests.fake_hub import Repo

REPO = "tester/CorefConcept"
UNET = "unet/diffusion_pytorch_model.safetensors"
K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
BIAS = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0.bias"


@pytest.fixture
def specs():
    found = library.library()
    return [found[slug] for slug in ("dog", "cat", "mermaid")]


def repo(fake, name=REPO, kind="dataset"):
    return fake.repos[kind, name]


def test_a_dataset_is_one_commit_with_everything(fake, mine, specs):
    done = mine.publish_dataset(specs, "CorefConcept", tag="v1")
    assert len(repo(fake).commits) == 2 and repo(fake).head == done.commit
    assert repo(fake).files == {".gitattributes": b"", **dataset.files(specs, REPO)}
    assert repo(fake).tags == {"v1": done.commit} and repo(fake).private
    assert done.url.endswith(f"/datasets/{REPO}") and done.tag == "v1"
    assert repo(fake).messages == ["CorefConcept: dog, cat, mermaid"]


def test_the_snippet_of_the_dataset_works_from_an_empty_folder(fake, url, mine, specs, tmp_path):
    """The card's own lines and nothing else."""
    mine.publish_dataset(specs, REPO)
    code = read_snippet(repo(fake)) + "\nprint(terms['train'].num_rows, sorted(dog['term']))"
    objects = [spec for spec in specs if spec.category == "object"]
    held_out = sorted(term.text for term in specs[0].corefs if term.split == "test")
    told = in_empty_folder(code, url, tmp_path)
    assert told == f"{len(dataset.rows(objects, 'train'))} {held_out}\n" and held_out


def read_snippet(there: Repo) -> str:
    """The one block of Python in a published card."""
    (code,) = [block.split("```")[0] for block in there.files["README.md"].decode().split("```python\n")[1:]]
    return code


def in_empty_folder(code: str, url: str, tmp_path, **settings: str) -> str:
    """What a process prints that has the libraries, an empty folder, an empty home and an address of the Hub."""
    for name in ("empty", "home"):
        (tmp_path / name).mkdir(exist_ok=True)
    kept = {
        name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH", "OMP_NUM_THREADS") if name in os.environ
    }
    env = {**kept, "HOME": str(tmp_path / "home"), "HF_ENDPOINT": url, "HF_TOKEN": "hf_good", **settings}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path / "empty", env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_publishing_twice_changes_nothing(fake, mine, specs):
    first, second = (mine.publish_dataset(specs, REPO) for _ in range(2))
    assert first == second and len(repo(fake).commits) == 2


def test_concepts_of_others_are_kept(fake, mine, specs):
    mine.publish_dataset(specs[:2], REPO)
    seen = mine.difference(specs[2:], REPO)
    assert (seen.new, seen.changed, seen.kept, seen.terms) == (("mermaid",), (), ("cat", "dog"), 30)
    mine.publish_dataset(specs[2:], REPO, parent=seen.parent)
    changes = changelog.render(changelog.compare(specs[:2], specs), seen.parent, "")
    assert repo(fake).files == {".gitattributes": b"", **dataset.files(specs, REPO, changes)}


def test_a_changed_concept_replaces_its_old_form(fake, mine, specs):
    mine.publish_dataset(specs, REPO)
    dog = replace(specs[0], category="ip")
    mine.publish_dataset([dog], REPO)
    assert "specs/ip/dog.json" in repo(fake).files and "specs/object/dog.json" not in repo(fake).files


def test_the_difference_counts_terms(mine, specs):
    assert mine.difference(specs, REPO).new == ("dog", "cat", "mermaid")
    mine.publish_dataset(specs, REPO)
    dog = replace(specs[0], corefs=(replace(specs[0].corefs[0], certainty="low"), *specs[0].corefs[1:]))
    seen = mine.difference([dog], REPO)
    assert (seen.new, seen.changed, seen.terms) == ((), ("dog",), 2)


def test_nothing_is_published_over_a_change_that_was_not_seen(fake, mine, specs):
    mine.publish_dataset(specs[:1], REPO)
    seen = mine.difference(specs, REPO)
    head = repo(fake).change({**repo(fake).files, "notes.md": b"hello"})
    with pytest.raises(CrceError, match="changed meanwhile"):
        mine.publish_dataset(specs, REPO, parent=seen.parent)
    assert repo(fake).head == head
    mine.publish_dataset(specs, REPO, parent=head)
    assert repo(fake).files["notes.md"] == b"hello"


def test_a_broken_spec_there_stops_it(fake, mine, specs):
    mine.publish_dataset(specs, REPO)
    head = repo(fake).change({**repo(fake).files, "specs/object/dog.json": b"{"})
    with pytest.raises(CrceError, match=r"dog\.json: line 1"):
        mine.publish_dataset(specs[1:], REPO)
    assert repo(fake).head == head


def test_a_pull_request_leaves_the_repository_alone(fake, mine, specs):
    mine.publish_dataset(specs[:1], REPO)
    fake.repos["dataset", "other/CorefConcept"] = repo(fake)
    done = mine.publish_dataset(specs, "other/CorefConcept", pull_request=True, tag="v1")
    assert done.url.endswith("/datasets/other/CorefConcept/discussions/1") and done.tag == ""
    assert len(repo(fake).commits) == 2 and not repo(fake).tags
    assert "specs/ip/mermaid.json" in repo(fake).pull_requests[0]


def test_who_owns_what(mine):
    assert mine.user() == "tester"
    assert [mine.owns(name) for name in ("CorefConcept", "lab/x", "other/x")] == [True, True, False]


def test_a_tag_is_never_moved(fake, mine, specs):
    first = mine.publish_dataset(specs[:1], REPO, tag="v1")
    with pytest.raises(CrceError, match="tag 'v1' already"):
        mine.publish_dataset(specs, REPO, tag="v1")
    assert repo(fake).tags == {"v1": first.commit} and repo(fake).head == first.commit


def test_a_tag_on_the_same_content_is_success(fake, mine, specs):
    first = mine.publish_dataset(specs, REPO, tag="v1")
    assert mine.publish_dataset(specs, REPO, tag="v1") == first
    assert repo(fake).tags == {"v1": first.commit} and len(repo(fake).commits) == 2


def test_a_repository_without_its_content_is_told(fake, mine, specs):
    fake.fail["commit"] = [400]
    with pytest.raises(
        CrceError, match=r"refuses .* The new repository .*/datasets/tester/CorefConcept was made and is"
    ):
        mine.publish_dataset(specs, REPO)
    assert mine.publish_dataset(specs, REPO).commit == repo(fake).head


def test_a_publication_without_its_tag_is_told(fake, mine, specs):
    fake.fail["tag"] = [400]
    with pytest.raises(CrceError, match=r"was published as \w{10}, but without the tag 'v1'.*400"):
        mine.publish_dataset(specs, REPO, tag="v1")
    assert set(dataset.files(specs, REPO)) < set(repo(fake).files)


CASES = {
    "invalid card": ("validate-yaml", 400, "application/json",
                     b'{"errors": [{"message": "\\"datasets[0]\\" is not valid"}], "warnings": []}',
                     r'datasets\[0\]. is not valid'),
    "a proxy's page": ("validate-yaml", 502, "text/html", b"<html>502</html>", "no usable answer"),
    "no JSON": ("whoami", 200, "text/html", b"<html>Welcome</html>", "no usable answer"),
    "another shape": ("info", 200, "application/json", b"[]", "no usable answer"),
    "nothing": ("refs", 200, "application/json", b"null", "no usable answer"),
    "compressed": ("info", 200, "application/json", gzip.compress(b" " * 1_000_000), "compresses its answer"),
    "endless": ("info", 200, "application/json", b" " * (hub.LIMITS.size + 1), "sends more than 50,000,000 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_whatever_the_hub_answers_ends_as_one_clear_line(fake, mine, specs, case):
    route, status, media, body, says = CASES[case]
    headers = {"content-encoding": "gzip"} if case == "compressed" else {}
    fake.fail[route] = [Response(body, status, headers, media) for _ in range(9)]
    with pytest.raises(CrceError, match=says):
        mine.publish_dataset(specs, "CorefConcept", tag="v1")


def test_a_redirect_to_another_machine_is_not_followed(fake, mine, specs):
    fake.fail["info"] = [RedirectResponse("http://localhost:9/api/datasets/tester/CorefConcept")]
    with pytest.raises(CrceError, match="redirects to 'http://localhost:9/.*another machine"):
        mine.publish_dataset(specs, REPO)


def test_a_token_that_the_hub_echoes_goes_nowhere(fake, url, specs):
    fake.fail["info"] = [Response(b"{}", 400, {"X-Error-Message": "bad token: hf_canary_secret"})]
    with pytest.raises(CrceError, match="bad token: •••") as error:
        Hub.connect("hf_canary_secret").api.endpoint  # noqa: B018  it is remembered from here on
        Hub(HfApi(endpoint=url, token="hf_canary_secret")).publish_dataset(specs, REPO)
    assert "canary" not in str(error.value)
    noted = replace(specs[0], corefs=(replace(specs[0].corefs[0], note="hf_canary_secret"), *specs[0].corefs[1:]))
    made = hub.prepare_dataset([noted], REPO)
    assert b"canary" not in made.files["specs/object/dog.json"] + made.files["README.md"]


@pytest.mark.parametrize(("route", "statuses"), [("commit", [429, 429]), ("commit", [503]), ("preupload", [429]),
                                                 ("info", [502]), ("resolve", [429, 503]), ("tag", [500])])  # fmt: skip
def test_a_busy_hub_is_asked_again(fake, mine, specs, route, statuses):
    mine.publish_dataset(specs[:1], REPO)
    fake.fail[route] = list(statuses)
    mine.publish_dataset(specs, REPO, tag="v2")
    assert not fake.fail[route] and len(repo(fake).commits) == 3 and "v2" in repo(fake).tags


@pytest.mark.parametrize(
    ("route", "status", "says"),
    [("info", 401, "hf auth login"), ("commit", 403, "open a pull request"), ("commit", 409, "changed meanwhile"),
     ("commit", 412, "changed meanwhile"), ("commit", 413, "fewer"), ("commit", 400, "refuses"),
     ("commit", 404, r"has no tester/CorefConcept that this token can see \(404\). Check the name")],
)  # fmt: skip
def test_a_refusal_says_what_to_do(fake, mine, specs, route, status, says):
    fake.fail[route] = [status] * 2
    with pytest.raises(CrceError, match=says):
        mine.publish_dataset(specs, REPO)
    assert len(fake.fail[route]) == 1, "asked once only"


def test_what_cannot_be_read_is_not_published_as_lost(fake, mine, specs):
    mine.publish_dataset(specs[:2], REPO)
    head, fake.fail["resolve"] = repo(fake).head, [403] * 9
    with pytest.raises(CrceError, match="403"):
        mine.publish_dataset(specs[2:], REPO)
    assert repo(fake).head == head


def test_a_hub_that_stays_busy_is_given_up(fake, mine, specs):
    fake.fail["commit"] = [429] * 9
    with pytest.raises(CrceError, match="Wait a few minutes"):
        mine.publish_dataset(specs, REPO)
    assert len(fake.fail["commit"]) == 9 - 4


def test_a_pull_request_is_not_opened_twice(fake, mine, specs):
    mine.publish_dataset(specs[:1], REPO)
    fake.fail["commit"] = [503]
    with pytest.raises(CrceError, match="503"):
        mine.publish_dataset(specs, REPO, pull_request=True)
    assert not repo(fake).pull_requests


def test_a_wrong_token(url, specs):
    with pytest.raises(CrceError, match="does not accept the token"):
        Hub(HfApi(endpoint=url, token="hf_wrong")).publish_dataset(specs, REPO)
    with pytest.raises(CrceError, match="does not accept the token"):
        Hub(HfApi(endpoint=url, token="hf_wrong")).difference(specs, REPO)


def test_a_token_that_only_reads(fake, mine, url, specs):
    mine.publish_dataset(specs[:1], REPO)
    with pytest.raises(CrceError, match=r"may not write to tester/CorefConcept \(403\)"):
        Hub(HfApi(endpoint=url, token="hf_readonly")).publish_dataset(specs, REPO)


def test_a_bad_name_is_refused_before_anything_is_sent(fake, mine, specs):
    with pytest.raises(CrceError, match="Write user/name"):
        mine.publish_dataset(specs, "tester/../etc")
    with pytest.raises(CrceError, match="at least one"):
        mine.publish_dataset([], REPO)
    assert not fake.calls


def test_no_hub(specs):
    with pytest.raises(CrceError, match="cannot be reached"):
        Hub(HfApi(endpoint="http://127.0.0.1:9", token="hf_good")).publish_dataset(specs, REPO)


def test_a_preview_needs_no_hub(specs):
    seen = hub.prepare_dataset(specs, REPO)
    assert seen.card == dataset.render_card(specs, REPO)
    assert seen.files == dataset.files(specs, REPO) and all(seen.sizes.values())


def test_what_is_shown_is_published_byte_for_byte(fake, mine, specs):
    seen = hub.prepare_dataset(specs[:2], REPO)
    mine.publish_dataset(specs[:2], REPO, seen=seen.digest)
    assert repo(fake).files == {".gitattributes": b"", **seen.files}
    assert f'load_dataset("{REPO}", "object")' in seen.card and "<user>" not in seen.card
    merged, _ = mine.prepare_dataset(specs[2:], REPO)
    mine.publish_dataset(specs[2:], REPO, seen=merged.digest)
    assert repo(fake).files == {".gitattributes": b"", **merged.files}
    assert "mermaid" in merged.card and "cat, dog" in merged.card


def test_what_was_not_shown_is_not_published(fake, mine, specs):
    alone = hub.prepare_dataset(specs[2:], REPO)
    mine.publish_dataset(specs[:2], REPO)
    head = repo(fake).head
    with pytest.raises(CrceError, match="is not what was shown"):
        mine.publish_dataset(specs[2:], REPO, seen=alone.digest)
    assert repo(fake).head == head


def test_the_card_keeps_what_changed_and_it_is_shown_before(crce, fake, url, mine, specs, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    mine.publish_dataset(specs[:1], REPO)
    there = repo(fake)
    assert b"## Changes" not in there.files["README.md"]
    since = there.head
    changed = replace(specs[0], corefs=specs[0].corefs[1:])
    _, difference = mine.prepare_dataset([changed, specs[1]], REPO)
    assert [(each.name, each.verb) for each in difference.changes] == [("cat", "new"), ("dog", "changed")]
    assert difference.changes[1].lines == (f"− coref: {specs[0].corefs[0].text}",)
    mine.publish_dataset([changed, specs[1]], REPO)
    card = there.files["README.md"].decode()
    assert f"### Since {since[:10]}" in card and f"- − coref: {specs[0].corefs[0].text}" in card
    code, out, err = crce("publish", "dataset", REPO, "dog", "--dry-run", "--json")
    (back,) = json.loads(out)["changes"]
    assert code == 0 and back["lines"] == [f"+ coref: {specs[0].corefs[0].text} ({specs[0].corefs[0].certainty})"]
    assert f"dog: {back['lines'][0]}" in err
    assert there.files["README.md"].decode() == card


def test_the_card_says_who_has_reviewed(specs):
    reviewed = [replace(spec, provenance=replace(spec.provenance, reviewer="Ada")) for spec in specs]
    cards = [hub.prepare_dataset(each, REPO).card for each in (specs, [reviewed[0], *specs[1:]], reviewed)]
    assert [("No person has reviewed them" in card) for card in cards] == [True, False, False]
    assert "has reviewed 1 of the 3 concepts" in cards[1] and "has reviewed every concept" in cards[2]


def script(code, tmp_path, **settings):
    """What a fresh process prints: huggingface_hub reads its settings when it is imported."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    env |= {"HF_HOME": str(tmp_path), "CRCE_HOME": str(tmp_path / "crce"), **settings}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


def test_without_a_token_nothing_leaves(tmp_path):
    code = "from crce.publishing.hub import Hub\ntry: Hub.connect()\nexcept Exception as e: print(type(e).__name__, e)"
    assert script(code, tmp_path) == f"CrceError {hub.NO_TOKEN}\n"


def test_token_and_endpoint_come_from_the_environment(fake, url, tmp_path):
    code = "from crce.publishing.hub import Hub; print(Hub.connect().user())"
    assert script(code, tmp_path, HF_TOKEN="hf_good", HF_ENDPOINT=url) == "tester\n"
    code = "from crce.publishing.hub import Hub; print(Hub.connect('hf_good').user())"
    assert script(code, tmp_path, HF_TOKEN="hf_wrong", HF_ENDPOINT=url) == "tester\n"


# Weights


@pytest.fixture
def base(tmp_path):
    """Enough of a base model to publish a difference to it."""
    folder = tmp_path / "secret folder" / "tiny-sd"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    rng = np.random.default_rng(0)
    tensors = {K: rng.normal(size=(4, 3)).astype(np.float32), BIAS: rng.normal(size=4).astype(np.float32)}
    save_file({**tensors, "conv_in.bias": np.zeros(2, np.float32)}, folder / UNET)
    return folder


@pytest.fixture
def run(base, specs, tmp_path):
    made = runs.create(Job(str(base), specs[0], EraseConfig(steps=3, lr=1e-3)))
    tensors = {name: t + 0.25 for name, t in load_file(base / UNET).items() if name in (K, BIAS)}
    save_file(tensors, made.weights_path, metadata={"format": "pt", "base": str(base), "target": "dog"})
    return made


def test_weights_go_out_exactly(fake, mine, run, base):
    done = mine.publish_weights(run, "no-dog")
    files = repo(fake, "tester/no-dog", "model").files
    names = [f"without-dog-crce-{part}.safetensors" for part in ("weights", "diff")]
    assert done.url.endswith("/tester/no-dog") and set(files) == {
        ".gitattributes", "README.md", f"specs/{run.job.spec.slug}.json", *names}  # fmt: skip
    trained, erased = load_file(run.weights_path), load(files[names[0]])
    assert all(np.array_equal(erased[name], trained[name]) for name in (K, BIAS))
    diffs = load(files[names[1]])
    attn2 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2"
    assert set(diffs) == {f"{attn2}_to_k.diff", f"{attn2}_to_out_0.diff_b"}
    assert all(np.allclose(t, 0.25) for t in diffs.values())


def exported(run, key, tmp_path):
    (made,) = export.export(run, [key], tmp_path)
    return load_file(made.path)


def test_the_weights_that_are_shown_are_published(fake, mine, run):
    formats = ("weights", "diff", "lora")
    seen = hub.prepare_weights(run, "tester/no-dog", formats, REPO)
    mine.publish_weights(run, "no-dog", formats, dataset_repo=REPO, seen=seen.digest)
    there = repo(fake, "tester/no-dog", "model").files
    assert there["README.md"] == seen.files["README.md"] and b"Its relative error is " in there["README.md"]
    assert {name: len(data) for name, data in there.items() if data} == seen.sizes
    with pytest.raises(CrceError, match="is not what was shown"):
        mine.publish_weights(run, "no-dog", ("weights",), seen=seen.digest)


def test_a_base_in_shards_gives_the_same_differences(base, run, tmp_path):
    whole, expected = base / UNET, exported(run, "diff", tmp_path)
    for number, (name, tensor) in enumerate(load_file(whole).items(), 1):
        save_file({name: tensor}, whole.with_name(f"{whole.stem}-{number:05d}-of-00003.safetensors"))
    whole.unlink()
    sharded = exported(run, "diff", tmp_path)
    assert expected.keys() == sharded.keys() and all(np.array_equal(t, sharded[n]) for n, t in expected.items())


def test_the_card_of_a_lora_says_that_it_is_none_of_the_exact_forms(fake, mine, run):
    mine.publish_weights(run, "no-dog", formats=("lora",))
    card = repo(fake, "tester/no-dog", "model").files["README.md"].decode()
    assert "approximation" in card and "relative error is " in card and "load_state_dict" not in card
    assert "peft" in card and "load_lora_weights(hf_hub_download(" in card


def test_no_folder_of_this_machine_goes_out(fake, mine, run):
    mine.publish_weights(run, "no-dog")
    everything = b"".join(repo(fake, "tester/no-dog", "model").files.values())
    assert b"secret folder" not in everything and b"tiny-sd" in everything


def test_the_card_tells_what_was_measured(fake, mine, run):
    figure = {"yes": 1, "n": 20, "rate": 0.05, "low": 0.01, "high": 0.24, "base_rate": 0.9, "ratio": 0.06}
    report = {"judge": "embedded", "metrics": {"acc_u": figure}, "left_out": {"corefs": 2, "retains": 0}}
    (run.dir / "report.json").write_text(json.dumps(report))
    mine.publish_weights(run, "no-dog", formats=("weights",), dataset_repo=REPO)
    card = ModelCard(repo(fake, "tester/no-dog", "model").files["README.md"].decode())
    assert card.data.datasets == [REPO] and card.data.library_name == "diffusers"
    result = card.data.eval_results[0]
    assert (result.metric_type, result.metric_value, result.metric_name) == ("acc_u", 0.05, "Acc_U (n = 20)")
    assert "| Acc_U | the concept (lower is better) | 5% | 90% | 20 | 1% to 24% |" in card.text
    assert "first guess" not in card.text
    assert "not a safety guarantee" in card.text.replace("\n", " ") and "2 corefs" in card.text
    assert "ComfyUI" not in card.text and run.job.spec.digest in card.text


def test_the_repository_has_concepts_and_report_without_paths(fake, mine, run, base, specs):
    report = {"base": str(base), "concept": "dog", "metrics": {}, "also": [{"base": str(base), "metrics": {}}]}
    (run.dir / "report.json").write_text(json.dumps(report))
    mine.publish_weights(run, "no-dog")
    files = repo(fake, "tester/no-dog", "model").files
    told = json.loads(files["report.json"])
    assert (told["concept"], told["base"], told["also"][0]["base"]) == ("dog", "tiny-sd", "tiny-sd")
    assert spec_from_dict(json.loads(files[f"specs/{specs[0].slug}.json"])) == specs[0]


def test_a_pipeline_is_the_repository_itself(fake, mine, run, tiny_sd_dir):
    """So that `from_pretrained` of its name loads it."""
    other = runs.create(Job(str(tiny_sd_dir), run.job.spec, EraseConfig(steps=1)))
    name = "conv_in.bias"
    save_file({name: load_file(tiny_sd_dir / UNET)[name] + 1}, other.weights_path)
    mine.publish_weights(other, "no-dog", formats=("pipeline", "diff"), fp16=True)
    files = repo(fake, "tester/no-dog", "model").files
    assert {"model_index.json", UNET, "unet/config.json", "vae/config.json", "tokenizer/tokenizer.json",
            "without-dog-crce-diff-fp16.safetensors"} < set(files)  # fmt: skip
    assert load(files[UNET])[name].dtype == np.float16
    card = files["README.md"].decode()
    assert 'from_pretrained("tester/no-dog")' in card and "Rounded to fp16" in card


def test_a_base_on_the_hub_is_not_downloaded_unasked(fake, url, run, base, tmp_path):
    """Once it was asked for, it is read from the cache, without the network."""
    fake.repos["model", "tester/base"] = Repo(private=False)
    files = {path.relative_to(base).as_posix(): path.read_bytes() for path in base.rglob("*") if path.is_file()}
    fake.repos["model", "tester/base"].change(files)
    read = "from crce.publishing import base_files\n"
    read += "try: print(len(base_files.unet('tester/base')))\nexcept Exception as e: print(type(e).__name__, e)"
    fetch = "from huggingface_hub import snapshot_download as fetch\nfetch('tester/base')"
    online = {"HF_ENDPOINT": url, "HF_TOKEN": "hf_good"}
    assert "CrceError The base model 'tester/base' is not on this machine" in script(read, tmp_path, **online)
    assert not fake.calls
    script(fetch, tmp_path, **online)
    there = script(read, tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert there == f"{len(load_file(base / UNET))}\n"


def test_the_card_tells_the_strict_accuracies(run):
    figure = Accuracy(1, 20, 0.05, 0.01, 0.24, 0.9, 0.06)
    report = Report({"acc_u": figure}, {"acc_u": replace(figure, rate=0.15, base_rate=0.8)})
    card = ModelCard(weights_card(run.job, report, [], "you/no-dog"))
    assert [(r.metric_type, r.metric_value) for r in card.data.eval_results] == [
        ("acc_u", 0.05), ("acc_u_strict", 0.15),
    ]  # fmt: skip
    assert "| 5% | 90% | 20 | 1% to 24% | 15% | 80% |" in card.text and "first guess" in card.text


def test_a_card_without_a_report_says_so(fake, mine, run):
    mine.publish_weights(run, "no-dog")
    assert "This run has not been measured" in repo(fake, "tester/no-dog", "model").files["README.md"].decode()


@pytest.mark.parametrize(("method", "lists"), [("crce", True), ("esd-x-strict", False)])
def test_the_card_claims_what_the_method_does(run, specs, method, lists):
    card = weights_card(Job("emoji-sd", specs[0], EraseConfig(method=method)), None, [], "you/no-dog")
    assert ("11 other names" in card, "10 neighbours" in card, "M 5" in card) == (lists,) * 3
    assert "license: other" in card and "base_model" not in card


def test_the_card_has_the_settings_that_the_method_uses(specs):
    def line(method, **settings):
        card = weights_card(Job("emoji-sd", specs[0], EraseConfig(method, **settings)), None, [], "you/no-dog")
        (found,) = [row for row in card.splitlines() if row.startswith("| training |")]
        return found, "differs from the published method" in card

    assert line("uce", damping=0.5) == ("| training | none: solved at once, λ 0.5 |", True)
    settings = {"steps": 50, "lr": 1e-3, "damping": 10.0, "seed": 3}
    assert line("mace", **settings) == ("| training | 50 steps, learning rate 0.001, λ 10, η 1, seed 3 |", True)
    assert line("crce", steps=9) == ("| training | 9 steps, η 1, M 5, N 3, seed 0 |", False)


def test_the_snippet_of_the_card_is_python(fake, mine, run):
    mine.publish_weights(run, "no-dog")
    card = repo(fake, "tester/no-dog", "model").files["README.md"].decode()
    compile(card.split("```python\n")[1].split("```")[0], "card", "exec")


def test_the_snippet_of_a_pipeline_works_from_an_empty_folder(fake, url, mine, run, tiny_sd_dir, tmp_path):
    other = runs.create(Job(str(tiny_sd_dir), run.job.spec, EraseConfig(steps=1)))
    name = "conv_in.bias"
    changed = load_file(tiny_sd_dir / UNET)[name] + 1
    save_file({name: changed}, other.weights_path)
    mine.publish_weights(other, "no-dog", formats=("pipeline",))
    code = read_snippet(repo(fake, "tester/no-dog", "model")) + "\nprint(*pipe.unet.conv_in.bias.tolist())"
    told = in_empty_folder(code, url, tmp_path)
    assert np.allclose([float(value) for value in told.split()], changed) and "crce" not in code


def test_the_snippet_for_the_default_model_draws_from_an_empty_folder(fake, url, mine, specs, tmp_path):
    """It needs the package, which has the base, as the card says."""
    made = runs.create(Job(bases.EMOJI_SD, specs[0], EraseConfig("crce-uce")))
    base = base_files.unet(bases.EMOJI_SD)
    key = next(name for name in base if name.endswith("attn2.to_v.weight"))
    save_file(
        {key: np.zeros(base[key].shape, np.float32)},
        made.weights_path,
        metadata={"format": "pt", "base": bases.EMOJI_SD},
    )
    mine.publish_weights(made, "no-dog", formats=("weights",))
    there = repo(fake, "tester/no-dog", "model")
    code = read_snippet(there)
    draw = (
        f"\nprint(pipe.unet.get_parameter({key!r}).abs().sum().item(), "
        "pipe('a dog', num_inference_steps=2, output_type='np').images.shape)"
    )
    assert in_empty_folder(code + draw, url, tmp_path, PYTHONPATH=str(ROOT)) == "0.0 (1, 64, 64, 3)\n"
    assert "`pip install .`" in there.files["README.md"].decode()


def test_the_repository_shows_before_and_after(fake, mine, run):
    for step, shade in ((0, 200), (3, 50)):
        names = tuple(f"images/preview-{step:05d}-{place}.png" for place in range(2))
        (run.dir / "images").mkdir(exist_ok=True)
        for each in names:
            Image.new("RGB", (16, 16), (shade, 0, 0)).save(run.dir / each)
        run.record(PreviewEvent(step, ("dog", "a *cat*"), (0, 0), names))
    mine.publish_weights(run, "no-dog")
    files = repo(fake, "tester/no-dog", "model").files
    with Image.open(io.BytesIO(files["before-after.png"])) as sheet:
        colours = {colour for _, colour in sheet.getcolors(1 << 20)}
    assert {(200, 0, 0), (50, 0, 0)} < colours
    card = files["README.md"].decode()
    assert r"![dog, a \*cat\*: before and after, on the same seeds](before-after.png)" in card


def test_of_an_evaluated_run_held_out_terms_are_shown(run):
    """The concept, and the first name and neighbour that were held out; a row without its pictures is left out."""
    terms = [("target", "dog", "train"), ("coref", "puppy", "train"), ("coref", "hound", "test"),
             ("retain", "cat", "test"), ("retain", "wolf", "test")]  # fmt: skip
    answers = [Answers(kind, text, split, "dog", None, (0,), (True,), (1.0,), (True,)) for kind, text, split in terms]
    write_report(run.dir / "report.json", Report({}, terms=tuple(answers)))
    (run.dir / "images" / "eval").mkdir(parents=True)
    for number in (0, 2):
        for prefix in ("base-", ""):
            Image.new("RGB", (8, 8)).save(run.dir / picture_name(terms[number][0], number, 0, prefix))
    assert [each.prompt for each in before_after.find_drawn(run)] == ["dog", "hound"]


@pytest.mark.parametrize(("formats", "says"), [(("ckpt",), "no format 'ckpt'"), ((), "No format is chosen")])
def test_formats_are_checked_first(fake, mine, run, formats, says):
    with pytest.raises(CrceError, match=says):
        mine.publish_weights(run, "tester/no-dog", formats)
    assert not fake.calls


def test_a_run_without_weights(fake, mine, run):
    run.weights_path.unlink()
    with pytest.raises(CrceError, match="Let the erasure finish"):
        mine.publish_weights(run, "tester/no-dog")


def test_weights_of_another_base(run, base):
    save_file({"conv_in.bias": np.zeros(2, np.float32)}, base / UNET)
    for key in ("diff", "lora"):
        with pytest.raises(CrceError, match="another base"):
            export.export(run, [key], base)
    (base / UNET).write_bytes(b"broken")
    with pytest.raises(CrceError, match="cannot be read"):
        export.export(run, ["diff"], base)


# Adapters


@pytest.fixture
def membranes(specs):
    """A run of SPM over two concepts."""
    made, rng = runs.create(Job("emoji-sd", specs[0], EraseConfig("spm", steps=3, lr=1e-3))), np.random.default_rng(0)
    shapes = {f"{K.removesuffix('.weight')}": ((1, 3), (4, 1)), "mid_block.proj_in": ((1, 5, 1, 1), (6, 1, 1, 1))}
    tensors = {
        f"{target}/{layer}.{part}": rng.normal(size=shape).astype(np.float32)
        for target in ("dog", "black/white cat")
        for layer, pair in shapes.items()
        for part, shape in zip(("down", "up"), pair, strict=True)
    }
    save_file(tensors, made.weights_path, metadata={"format": "pt", "base": "emoji-sd", "kind": "spm"})
    return made


def test_membranes_go_out_as_a_lora_of_all_concepts_without_their_gate(fake, mine, membranes):
    mine.publish_weights(membranes, "no-dog", formats=("lora",))
    files = repo(fake, "tester/no-dog", "model").files
    trained, lora = load_file(membranes.weights_path), load(files["without-dog-spm-lora.safetensors"])
    for layer in (K.removesuffix(".weight"), "mid_block.proj_in"):
        name = f"lora_unet_{layer.replace('.', '_')}"
        up, down = (lora[f"{name}.lora_{part}.weight"] for part in ("up", "down"))
        own = [
            [trained[f"{target}/{layer}.{part}"] for part in ("up", "down")] for target in ("dog", "black/white cat")
        ]
        expected = sum(u.reshape(len(u), 1) @ d.reshape(1, -1) for u, d in own)
        product = up.reshape(len(up), -1) @ down.reshape(len(down), -1) * lora[f"{name}.alpha"] / len(down)
        assert up.ndim == down.ndim == own[0][0].ndim
        np.testing.assert_allclose(product, expected, rtol=1e-5, atol=1e-6)
    card = files["README.md"].decode()
    assert "**not their gate**" in card and "approximation" not in card and "load_state_dict" not in card


def test_diffusers_understands_the_names_of_the_membranes(membranes, tmp_path):
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
    from safetensors.torch import load as load_torch

    (made,) = export.export(membranes, ["lora"], tmp_path)
    state, alphas = _convert_non_diffusers_lora_to_diffusers(load_torch(made.path.read_bytes()))
    assert len(state) == 4 and set(alphas.values()) == {2.0}


@pytest.mark.parametrize(("kind", "formats", "says"), [("spm", ("weights", "diff"), "Choose only lora"),
                                                      ("receler", ("lora",), "They work here")])  # fmt: skip
def test_what_a_format_cannot_hold_is_refused(fake, mine, membranes, kind, formats, says):
    save_file(load_file(membranes.weights_path), membranes.weights_path, metadata={"kind": kind})
    with pytest.raises(CrceError, match=f"cannot be exported as {' or '.join(formats)}.*{says}"):
        mine.publish_weights(membranes, "tester/no-dog", formats)
    assert not fake.calls
