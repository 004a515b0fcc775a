"""The model card of published weights: what was erased, how to load it, what was measured."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from crce import __version__, bases
from crce.bases import public_name
from crce.catalogue import METHOD_FACTS
from crce.concepts.spec import ConceptSpec
from crce.evaluation.metrics import METRICS
from crce.evaluation.report import Accuracy, Report
from crce.files import is_folder
from crce.markdown import plain
from crce.publishing import before_after, export
from crce.runs import Job

TEMPLATE = Path(__file__).parents[1] / "templates" / "weights.md"
HUB = "https://huggingface.co"
# The Hub's key for the licence of a base, by the beginning of its id.
_LICENCES = {
    ("CompVis/stable-diffusion", "stable-diffusion-v1-5/"): "creativeml-openrail-m",
    ("stabilityai/stable-diffusion-xl",): "openrail++",
}


def weights_card(
    job: Job,
    report: Report | None,
    formats: Iterable[str],
    repo: str,
    dataset: str = "",
    lora_error: float | None = None,
    fp16: bool = False,
    pictured: Sequence[str] = (),
) -> str:
    """The README.md of a model repository.

    dataset: Hub id of the dataset with the terms, if published. lora_error: relative error of the LoRA, once it is
    made. pictured: the prompts of the picture before and after, if there is one.
    """
    method, spec, config = METHOD_FACTS[job.config.method], job.spec, job.config
    name = plain(spec.name)
    facts = {
        "name": name, "base": public_name(job.base), "link": _format_link(job.base),
        "uses": [_describe_use(job, key, repo, lora_error, fp16) for key in export.FORMATS if key in formats],
        "method": config.title, "source": method.source, "touches": METHOD_FACTS[config.base_method].touches,
        "pictured": plain(", ".join(pictured)), "picture": before_after.FILE, "version": __version__,
        "bundled": job.base == bases.EMOJI_SD,
        "corefs": spec.train_corefs, "retains": spec.train_retains,
        "lists": method.lists, "digest": spec.digest, "base_digest": job.base_digest,
        "training": ", ".join(_list_settings(job, report)), "differs": METHOD_FACTS[config.base_method].differs,
        **_format_measurements(report),
    }  # fmt: skip
    data = _make_header(job, report, repo, dataset)
    return str(ModelCard.from_template(data, template_path=str(TEMPLATE), **facts))


def _describe_use(job: Job, key: str, repo: str, lora_error: float | None, fp16: bool) -> dict:
    """A format's heading, file and Python, which downloads it from the repository."""
    whole, kind = export.FORMATS[key].ending == "/", job.config.result.kind
    file = "" if whole else export.file_name(export.name_of(job), job.base, key, fp16)
    place = f'"{repo}"' if whole else f'hf_hub_download("{repo}", "{file}")'
    code = export.snippet(key, place, export.base_expression(job.base, public=True))
    download = "" if whole or not code else "from huggingface_hub import hf_hub_download\n"
    limits = export.describe_limits(key, kind, fp16, lora_error)
    return {"title": export.FORMATS[key].title, "file": file, "code": download + code,
            "how": export.FORMATS[key].how, "limits": limits}  # fmt: skip


def _list_settings(job: Job, report: Report | None) -> list[str]:
    """What the run was told, as far as its method uses it."""
    config, facts = job.config, METHOD_FACTS[job.config.method]
    damped = [f"λ {config.damping:g}"] if config.damping is not None else []
    if config.closed_form:
        return ["none: solved at once", *damped]
    drawn = [f"M {config.corefs}", f"N {config.retains}"] if facts.lists else []
    rate = [f"learning rate {config.lr:g}"] if config.lr else []
    return [_format_steps(job, report), *rate, *damped, f"η {config.eta:g}", *drawn, f"seed {config.seed}"]


def _format_steps(job: Job, report: Report | None) -> str:
    if not job.config.until_gone:
        return f"{job.config.steps} steps"
    taken = f"{report.steps} steps, of " if report and report.steps else ""
    return f"{taken}at most {job.config.steps} steps, until the judge hardly sees the concept"


def _make_header(job: Job, report: Report | None, repo: str, dataset: str) -> ModelCardData:
    key, name, link = _find_licence(job.base)
    return ModelCardData(
        license=key,
        license_name=name or None,
        license_link=link or None,
        base_model=job.base if _is_on_hub(job.base) else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        datasets=[dataset] if dataset else None,
        tags=["concept-erasure", "machine-unlearning", "text-to-image", "diffusion", "crce"],
        model_name=repo.rpartition("/")[2],
        eval_results=_make_results(job.spec, report, dataset) or None,
    )


def _find_licence(base: str) -> tuple[str, str, str]:
    """That of the base, which the weights stay under: the Hub's key; for one without a key its name and link."""
    link = f"{HUB}/{base}" if _is_on_hub(base) else ""
    known = (key for begins, key in _LICENCES.items() if base.startswith(begins))
    return next(((key, "", "") for key in known), ("other", "that-of-the-base-model", link))


def _make_results(spec: ConceptSpec, report: Report | None, dataset: str) -> list[EvalResult]:
    rows = [
        (f"{key}{suffix}", f"{METRICS[key].name}{note}", value)
        for suffix, note, found in (("", "", report.metrics), ("_strict", " strict", report.strict))
        for key, value in found.items()
        if key in METRICS
    ] if report else []  # fmt: skip
    return [
        EvalResult(
            task_type="text-to-image",
            dataset_type=dataset or "CorefConcept",
            dataset_name=f"CorefConcept, {spec.name}",
            dataset_config=spec.category,
            metric_type=key,
            metric_name=f"{name} (n = {value.n})",
            metric_value=round(value.rate, 4),
        )
        for key, name, value in rows
    ]


def _format_measurements(report: Report | None) -> dict:
    if not report or not report.metrics:
        return {"metrics": [], "strict": False, "judge": "", "left_out": ""}
    lines = [_format_line(key, report.metrics[key], report.strict.get(key)) for key in METRICS if key in report.metrics]
    dropped = " and ".join(f"{n} {kind}" for kind, n in vars(report.left_out).items() if n)
    note = f"Not counted, because the base model does not draw them: {dropped}." if dropped else ""
    return {"metrics": lines, "strict": bool(report.strict), "judge": report.judge, "left_out": note}


def _format_line(key: str, value: Accuracy, strict: Accuracy | None) -> dict:
    metric = METRICS[key]
    what = f"{metric.plain} ({'lower' if metric.low else 'higher'} is better)"
    interval = f"{value.low:.0%} to {value.high:.0%}"
    shown = {"strict": f"{strict.rate:.0%}", "strict_base": f"{strict.base_rate:.0%}"} if strict else {}
    return {"short": metric.name, "what": what, "rate": f"{value.rate:.0%}", "base": f"{value.base_rate:.0%}",
            "n": value.n, "interval": interval, **shown}  # fmt: skip


def _format_link(base: str) -> str:
    return f"[{base}]({HUB}/{base})" if _is_on_hub(base) else public_name(base)


def _is_on_hub(base: str) -> bool:
    return base != bases.EMOJI_SD and not is_folder(base)
