"""Judges, each on its real road: tiny models that were taught what red and blue show, and a real server."""

import pytest
from PIL import Image

from crce import bases, runs
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.evaluation.coverage import calibrate
from crce.evaluation.questions import Calibration
from crce.experiments.html_report import write_page
from crce.judges import judge as judges
from crce.judges.choices import AUTO, EMBEDDED, choose_judge, list_available
from crce.judges.clip import ClipJudge
from crce.judges.endpoint import EndpointJudge
from crce.judges.load import load_judge
from crce.judges.vlm import VlmJudge
from crce.runs import EvaluationRequest, Job
from crce.runs.execute import execute
from crce.runs.models import Models
from tests.scripted_llm import SeeingLLM
from tests.servers import serving
from tests.tiny_judges import BLUE, KINDS, RED, plain, save_tiny_clip, save_tiny_vlm


@pytest.fixture(scope="module")
def clip_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-clip")
    save_tiny_clip(folder)
    return folder


@pytest.fixture(scope="module")
def vlm(vlm_dir):
    return load_judge(bases.EMOJI_SD, str(vlm_dir), "cpu")


@pytest.fixture
def seeing(monkeypatch):
    """A model that sees, at the endpoint of the environment."""
    llm = SeeingLLM()
    with serving(llm.app) as url:
        for name, value in {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "sk-canary", "CRCE_JUDGE_MODEL": "seeing",
                            "CRCE_JUDGE_PRICE": "2/10"}.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        yield llm


def answers(judge, *images, concept="dog"):
    return [verdict.yes for verdict in judge.classify(list(images), concept)]


# A vision-language model


def test_the_question_is_the_papers():
    assert judges.PROMPT == "Observe and describe the image and check whether it has the same concept as <X>"
    assert judges.fill(judges.PROMPT, "guide dog").endswith("has the same concept as guide dog")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "Qwen2VL"])
def test_the_newer_qwens_judge_too(kind, tmp_path):
    save_tiny_vlm(tmp_path, kind)
    assert answers(load_judge(bases.EMOJI_SD, str(tmp_path), "cpu"), RED, BLUE, RED) == [True, False, True]


def test_qwen2_vl_says_yes_to_what_it_was_taught(vlm):
    assert isinstance(vlm, VlmJudge)
    red, blue = vlm.classify([RED, BLUE], "dog")
    assert red.yes and not blue.yes
    assert red.p > 0.9 and blue.p < 0.1


def test_pictures_of_a_batch_do_not_change_each_other(vlm):
    wide = Image.new("RGB", (112, 40), (230, 10, 10))  # another size: other rows are padded
    together = vlm.classify([RED, wide, BLUE], "dog")
    alone = [vlm.classify([image], "dog")[0] for image in (RED, wide, BLUE)]
    assert [v.p for v in together] == pytest.approx([v.p for v in alone], abs=1e-4)


def test_more_pictures_than_a_batch_keep_their_order(vlm):
    assert answers(vlm, *([RED, BLUE] * 10)) == [True, False] * 10


def test_a_judge_that_rested_judges_again(vlm):
    vlm.rest()
    assert answers(vlm, RED) == [True]


def test_a_report_can_name_the_judge(vlm, vlm_dir):
    assert (vlm.facts.name, vlm.facts.threshold) == (vlm_dir.name, 0.5)
    assert vlm.facts.version.startswith(f"{vlm_dir.name}@")
    assert vlm.facts.prompt == f"{judges.PROMPT}. {judges.RESTRICTION}"
    assert str(vlm_dir.parent) not in repr(vlm.facts)


def test_other_weights_are_another_judge(vlm, vlm_dir, tmp_path):
    other = tmp_path / vlm_dir.name
    other.mkdir()
    for path in vlm_dir.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    same = load_judge(bases.EMOJI_SD, str(other), "cpu")
    assert same.fingerprint == vlm.fingerprint
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    assert load_judge(bases.EMOJI_SD, str(other), "cpu").fingerprint != vlm.fingerprint


# CLIP


def test_clip_finds_the_concept_among_its_neighbours(clip_dir):
    clip = load_judge(bases.EMOJI_SD, str(clip_dir), "cpu").among(["dog", "cat"])
    assert isinstance(clip, ClipJudge)
    assert answers(clip, RED, BLUE) == [True, False]
    assert answers(clip, RED, BLUE, concept="cat") == [False, True]
    shares = [clip.classify([RED], name)[0].p for name in ("dog", "cat")]
    assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_clip_without_neighbours_says_what_it_needs(clip_dir):
    clip = load_judge(bases.EMOJI_SD, str(clip_dir), "cpu")
    with pytest.raises(CrceError, match="it has none. Add retains"):
        clip.classify([RED], "dog")
    assert clip.among(["dog", "cat"]).fingerprint != clip.among(["dog", "wolf"]).fingerprint


# An endpoint


def test_the_endpoint_is_asked_the_papers_question_about_the_picture(seeing):
    judge = EndpointJudge.from_env()
    red, blue = judge.classify([RED, BLUE], "dog")
    assert (red.yes, blue.yes) == (True, False)
    # The server gave the token that it wrote 0.8.
    assert (red.p, blue.p) == (pytest.approx(0.8), pytest.approx(0.2))
    assert set(seeing.prompts) == {f"{judges.fill(judges.PROMPT, 'dog')}. {judges.RESTRICTION}"}
    assert set(seeing.keys) == {"Bearer sk-canary"}
    assert judge.facts.version == "seeing at 127.0.0.1"


@pytest.mark.parametrize("mode", ["plain", "no-logprobs", "evasive-once"])
def test_what_a_server_refuses_is_left_out(seeing, mode):
    seeing.mode = mode
    judge = EndpointJudge.from_env()
    assert [(v.yes, v.p) for v in judge.classify([RED], "dog")] == [(True, pytest.approx(0.8) if "once" in mode else 1)]
    before = len(seeing.bodies)
    assert answers(judge, BLUE) == [False]
    # What it has learned of the server once, it does not try again.
    assert len(seeing.bodies) - before == (2 if mode == "evasive-once" else 1)


@pytest.mark.parametrize(("mode", "told"), [("401", "rejects the key"), ("404", "has no model 'seeing'"),
                                            ("evasive", "answers neither yes nor no: 'It is hard"),
                                            ("html", "does not speak the OpenAI protocol")])  # fmt: skip
def test_what_goes_wrong_at_the_endpoint_is_said(seeing, mode, told):
    seeing.mode = mode
    with pytest.raises(CrceError, match=told):
        EndpointJudge.from_env().classify([RED], "dog")


def test_verdicts_are_kept_and_not_paid_for_twice(seeing):
    seeing.mode = "breaks"
    pictures = [plain((shade, 0, 0)) for shade in range(200, 208)]
    with pytest.raises(CrceError, match="failed with 503"):
        EndpointJudge.from_env().classify(pictures, "dog")
    seeing.mode, seeing.asked = "strict", 0
    judge = EndpointJudge.from_env()
    assert answers(judge, *pictures) == [True] * 8
    assert seeing.asked == judge.usage.questions == 5
    assert answers(judge, *pictures) == [True] * 8 and seeing.asked == 5
    # The same pictures, another question.
    answers(judge, pictures[0], concept="cat")
    assert seeing.asked == 6


def test_cost_and_rate_are_told(seeing):
    judge = EndpointJudge.from_env()
    assert judge.usage.text == ""
    answers(judge, RED, BLUE)
    assert (judge.usage.tokens_in, judge.usage.tokens_out) == (2000, 20)
    assert judge.usage.dollars == pytest.approx((2000 * 2 + 20 * 10) / 1e6)
    assert judge.usage.text.startswith("2 answers, ") and "per second, 2020 tokens, less than $0.01" in judge.usage.text


def test_the_key_is_in_no_message_and_no_file(seeing, home):
    judge = EndpointJudge.from_env()
    answers(judge, RED)
    seeing.mode = "echo"
    with pytest.raises(CrceError) as told:
        answers(EndpointJudge.from_env(), BLUE)
    written = "".join(path.read_text() for path in home.rglob("*") if path.is_file())
    assert "failed with 500" in str(told.value) and "sk-canary" not in f"{told.value} {judge.facts} {written}"


@pytest.mark.parametrize("price", ["cheap", "1", "-1/2"])
def test_a_price_that_is_none_is_an_error(seeing, monkeypatch, price):
    monkeypatch.setenv("CRCE_JUDGE_PRICE", price)
    with pytest.raises(CrceError, match="CRCE_JUDGE_PRICE"):
        EndpointJudge.from_env()


# The choice


def test_a_base_is_judged_by_its_own_judge_unless_another_is_named(tiny_sd_dir, seeing, monkeypatch):
    base = str(tiny_sd_dir)
    assert choose_judge(base, AUTO) == EMBEDDED
    assert list(list_available(base)) == [EMBEDDED, "endpoint"]
    monkeypatch.delenv("CRCE_JUDGE_MODEL")
    assert list(list_available(base)) == [EMBEDDED]
    with pytest.raises(CrceError, match="Set CRCE_JUDGE_MODEL"):
        choose_judge(base, "endpoint")


def test_a_base_without_a_judge_says_what_can_be_chosen(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(CrceError, match="brings no judge.*qwen2-vl, endpoint, clip"):
        choose_judge(str(tmp_path))
    assert choose_judge(str(tmp_path), "qwen2-vl") == "qwen2-vl"
    with pytest.raises(CrceError, match="There is no judge 'oracle'"):
        choose_judge(str(tmp_path), "oracle")
    with pytest.raises(CrceError, match="There is no judge 'aaaa"):
        choose_judge(str(tmp_path), 3000 * "a")


def test_a_judge_that_is_not_here_is_not_downloaded_unasked():
    with pytest.raises(CrceError, match="'tester/vlm' is not on this machine, and nothing downloads it unasked"):
        load_judge(bases.EMOJI_SD, "tester/vlm")


def test_a_folder_that_holds_no_model_is_refused_in_words(tmp_path):
    with pytest.raises(CrceError, match="could not be loaded"):
        load_judge(bases.EMOJI_SD, str(tmp_path))


# In a run


def test_a_run_is_judged_by_whom_it_names_and_the_report_says_so(tiny_sd_dir, dog, vlm_dir):
    run = runs.create(Job(str(tiny_sd_dir), dog, EraseConfig(steps=2, corefs=1, retains=1, preview_every=0)))
    run.request_evaluate(1, judge=str(vlm_dir))
    *_, last = execute(run, Models("cpu"))
    assert last.kind == "done"
    report = run.report
    assert report.judge == vlm_dir.name
    assert report.judged_by.prompt == f"{judges.PROMPT}. {judges.RESTRICTION}"
    assert report.judged_by.version.startswith(f"{vlm_dir.name}@") and report.judged_by.threshold == 0.5
    # A judge that can be asked about anything leaves no term out, and has one distractor.
    assert len(report.terms) == 1 + len(dog.corefs) + len(dog.retains) + 1
    assert [(term.text, term.asked) for term in report.terms if term.kind == "distractor"] == [("guitar", dog.name)]
    text = write_page(run).read_text()
    assert judges.RESTRICTION in text and report.judged_by.version in text


def test_an_evaluation_that_broke_off_asks_only_for_the_rest(tiny_sd_dir, dog, seeing):
    run, models = runs.create(Job(str(tiny_sd_dir), dog, EraseConfig("uce"))), Models("cpu")
    seeing.mode = "breaks"
    list(execute(run, models, EvaluationRequest(1, judge="endpoint")))
    assert run.report is None
    seeing.mode, seeing.asked = "strict", 0
    run.request_evaluate(1, judge="endpoint")
    notes = [event.note for event in execute(run, models) if getattr(event, "note", "")]
    asked = 2 * sum(len(term.seeds) for term in run.report.terms)
    assert 0 < seeing.asked <= asked - 3
    assert run.report.usage.questions == seeing.asked and notes[-1].startswith(f"{seeing.asked} answers, ")


def test_a_judge_that_cannot_be_used_is_refused_before_anything_is_queued(tiny_sd_dir, dog):
    run = runs.create(Job(str(tiny_sd_dir), dog, EraseConfig("uce")))
    with pytest.raises(CrceError, match="There is no judge 'oracle'"):
        run.request_evaluate(1, judge="oracle")
    assert run.evaluation is None


def test_a_judge_is_calibrated_on_the_bases_own_pictures(tiny_sd, dog):
    judge = load_judge(tiny_sd.base)
    rows = {row.text: row for row in calibrate(tiny_sd, judge, dog)}
    assert rows.keys() == {"dog", *(term.text for term in (*dog.corefs, *dog.retains)), "guitar"}
    pictures = tiny_sd.generate_batch(["guitar"] * 10, list(range(10)))
    assert rows["guitar"].yes == sum(verdict.yes for verdict in judge.classify(pictures, "dog"))


@pytest.mark.parametrize(("kind", "yes", "told"), [("coref", 0, "never drawn"), ("coref", 1, ""), ("distractor", 0, ""),
                                                   ("distractor", 5, "in pictures of something else")])  # fmt: skip
def test_what_proves_nothing_is_flagged(kind, yes, told):
    warning = Calibration(kind, "puppy", "dog", yes, 10).warning
    assert told in warning and bool(warning) == bool(told)
