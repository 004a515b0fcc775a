"""Publishes to the Hugging Face Hub, in one commit on a known parent.

Publishing twice changes nothing, concurrent changes of others are never lost, and errors say what to do.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from crce.bases import public_name
from crce.concepts import dataset, library
from crce.concepts.spec import ConceptSpec, spec_to_dict
from crce.errors import CrceError
from crce.evaluation.report import Report
from crce.publishing import export
from crce.publishing.cards import weights_card
from crce.runs import Run

NO_TOKEN = "Log in with `hf auth login` or set HF_TOKEN; nothing has left this machine."
BUSY = (429, 500, 502, 503, 504)
WAITS = (1, 2, 4)  # seconds before each retry
LONGEST_WAIT = 30
OURS = ("specs/", "data/")  # folders of a dataset repository that we manage

T = TypeVar("T")
Specs = dict[str, ConceptSpec]
Content = dict[str, bytes | Path | None]  # a path: the file there; None deletes the file


@dataclass(frozen=True)
class Difference:
    """What publishing would change: names of concepts and the number of terms. parent: the commit compared with."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    kept: tuple[str, ...]
    terms: int
    parent: str


@dataclass(frozen=True)
class Preview:
    """What will be public: the card, the first rows, the size of each file, and deviations from the paper's format."""

    card: str
    rows: list[dict]
    files: dict[str, int]
    problems: list[str]


@dataclass(frozen=True)
class Published:
    """The page of the repository or pull request, the commit, and the tag if one was set."""

    url: str
    commit: str
    tag: str


def preview(specs: Iterable[ConceptSpec], first: int = 10) -> Preview:
    """What publishing these specs would show, without token or network. first: number of rows."""
    specs = list(specs)
    content = dataset.files(specs)
    sizes = {name: len(data) for name, data in content.items()}
    return Preview(content["README.md"].decode(), dataset.rows(specs, "train")[:first], sizes,
                   dataset.find_problems(specs))  # fmt: skip


@dataclass(frozen=True)
class Hub:
    """The Hub with one user's token. HF_ENDPOINT selects another server."""

    api: HfApi

    @classmethod
    def connect(cls, token: str = "") -> "Hub":
        """Uses this token or the one stored on this machine. Raises CrceError if there is none."""
        token = token or get_token() or ""
        if not token:
            raise CrceError(NO_TOKEN)
        return cls(HfApi(token=token))

    def user(self) -> str:
        """The name of the token's owner."""
        return self._try(self.api.whoami, "your account")["name"]

    def owns(self, repo: str) -> bool:
        """Whether the repository belongs to the user or their organisations; otherwise, open a pull request."""
        me = self._try(self.api.whoami, "your account")
        return self.full_name(repo).partition("/")[0] in {me["name"], *(org["name"] for org in me.get("orgs", []))}

    def full_name(self, repo: str) -> str:
        """Turns "CorefConcept" into "you/CorefConcept". Raises CrceError for an invalid name."""
        name = repo.strip() if "/" in repo else f"{self.user()}/{repo.strip()}"
        try:
            validate_repo_id(name)
        except HFValidationError:
            raise CrceError(
                f"{repo!r} is not a valid repository name. Write user/name, using letters, digits, - _ and ."
            ) from None
        return name

    def difference(self, specs: Iterable[ConceptSpec], repo: str) -> Difference:
        """What publishing these specs would change in a dataset repository, which may not exist yet."""
        repo = self.full_name(repo)
        parent = self._find_head(repo, "dataset")
        there = self._load_specs(repo, parent, self._list_files(repo, parent)) if parent else {}
        return _compare(_index(specs), there, parent)

    def publish_dataset(
        self,
        specs: Iterable[ConceptSpec],
        repo: str,
        private: bool = True,
        pull_request: bool = False,
        tag: str = "",
        parent: str = "",
    ) -> Published:
        """Adds the specs to the repository in one commit. A pull request gets no tag.

        parent: the commit that the user saw the difference to. If the repository has changed since, nothing is
        published. Raises CrceError on any failure.
        """
        chosen = _index(specs)
        dataset.files(chosen.values())  # raises an error before a repository is created
        message = f"CorefConcept: {', '.join(spec.name for spec in chosen.values())}"[:200]
        return self._publish(repo, "dataset", lambda repo, head: self._merge(repo, head, chosen), message,
                             private, pull_request, tag, parent)  # fmt: skip

    def publish_weights(
        self,
        run: Run,
        repo: str,
        formats: tuple[str, ...] = export.DEFAULT,
        private: bool = True,
        pull_request: bool = False,
        tag: str = "",
        dataset_repo: str = "",
        fp16: bool = False,
    ) -> Published:
        """Publishes a finished run's result with a model card, its concepts and its report, in one commit.

        Raises CrceError on any failure.
        """
        job, repo = run.job, self.full_name(repo)
        with tempfile.TemporaryDirectory() as folder:
            made = export.export(run, formats, Path(folder), fp16, at_root=True)
            error = next((each.error for each in made if each.error is not None), None)
            card = weights_card(job, run.report, formats, repo, dataset_repo, error, fp16)
            files: Content = {"README.md": card.encode(), **_describe_run(run), **_list_files(Path(folder))}
            message = f"{public_name(job.base)} without {job.spec.name}"[:200]
            return self._publish(repo, "model", lambda *_: files, message, private, pull_request, tag)

    def _publish(
        self,
        repo: str,
        kind: str,
        content: Callable[[str, str], Content],
        message: str,
        private: bool,
        pull_request: bool,
        tag: str,
        parent: str = "",
    ) -> Published:
        repo = self.full_name(repo)
        head = self._find_head(repo, kind) or self._create_repo(repo, kind, private)
        if parent and parent != head:
            raise CrceError(_report_moved(repo))
        tagged = "" if pull_request else self._check_tag(repo, kind, tag)
        files = content(repo, head)

        def commit():
            # An attempt uses up its operations, so each attempt creates new ones.
            return self.api.create_commit(
                repo, _make_operations(files), commit_message=message, repo_type=kind,
                create_pr=pull_request, parent_commit=head,
            )  # fmt: skip

        # If the answer to a commit is lost, a retry cannot commit twice: the parent is no longer the head. A pull
        # request would be opened twice, so it is retried only if the Hub did nothing.
        done = self._try(commit, repo, again=(429,) if pull_request else BUSY)
        if tagged:
            self._create_tag(repo, kind, tagged, done.oid)
        return Published(done.pr_url or self._build_url(repo, kind), done.oid, tagged)

    def _find_head(self, repo: str, kind: str) -> str:
        """The latest commit, or "" if the repository does not exist."""

        def head() -> str:
            try:
                return self.api.repo_info(repo, repo_type=kind).sha or ""
            except RepositoryNotFoundError as error:
                # The library raises the same error for a rejected token (401).
                if error.response.status_code == 404:
                    return ""
                raise

        return self._try(head, repo)

    def _create_repo(self, repo: str, kind: str, private: bool) -> str:
        self._try(lambda: self.api.create_repo(repo, repo_type=kind, private=private, exist_ok=True), repo)
        return self._find_head(repo, kind)

    def _merge(self, repo: str, head: str, chosen: Specs) -> Content:
        """The dataset with these concepts added; files of ours that are no longer needed are deleted."""
        names = self._list_files(repo, head)
        files = dataset.files({**self._load_specs(repo, head, names), **chosen}.values())
        return {**files, **{name: None for name in names if name.startswith(OURS) and name not in files}}

    def _list_files(self, repo: str, revision: str) -> list[str]:
        return self._try(lambda: self.api.list_repo_files(repo, repo_type="dataset", revision=revision), repo)

    def _load_specs(self, repo: str, revision: str, names: list[str]) -> Specs:
        """All specs in a dataset repository. If one cannot be read, it raises: publishing the rest would delete it."""
        wanted = [name for name in names if name.startswith("specs/") and name.endswith(".json")]
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(8) as pool:

            def spec(name: str) -> ConceptSpec:
                path = self._try(
                    lambda: self.api.hf_hub_download(
                        repo, name, repo_type="dataset", revision=revision, local_dir=folder
                    ),
                    repo,
                )
                return library.load_spec(Path(path))

            return _index(pool.map(spec, wanted))

    def _check_tag(self, repo: str, kind: str, tag: str) -> str:
        """Checks that the tag is free before anything is published; existing tags are never moved."""
        refs = self._try(lambda: self.api.list_repo_refs(repo, repo_type=kind), repo) if tag else None
        if refs and tag in {ref.name for ref in refs.tags}:
            raise CrceError(f"{repo} has a tag {tag!r} already. Nothing was published; choose another tag.")
        return tag

    def _create_tag(self, repo: str, kind: str, tag: str, commit: str) -> None:
        self._try(lambda: self.api.create_tag(repo, tag=tag, revision=commit, repo_type=kind, exist_ok=True), repo)

    def _build_url(self, repo: str, kind: str) -> str:
        return f"{self.api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo}"

    def _try(self, call: Callable[[], T], what: str, again: tuple[int, ...] = BUSY) -> T:
        """Calls the Hub and retries while it is busy. Raises CrceError saying what to do."""
        for wait in WAITS:
            try:
                return self._call(call, what)
            except _Refused as refused:
                if refused.status not in again:
                    raise
                time.sleep(min(wait if refused.retry_after is None else refused.retry_after, LONGEST_WAIT))
        return self._call(call, what)

    def _call(self, call: Callable[[], T], what: str) -> T:
        try:
            return call()
        except HfHubHTTPError as error:
            raise _Refused(what, error) from error
        except LocalEntryNotFoundError as error:
            # A failed download has the Hub's answer as its cause.
            cause = error.__cause__
            if isinstance(cause, HfHubHTTPError):
                raise _Refused(what, cause) from error
            raise CrceError(self._unreachable()) from error
        except OfflineModeIsEnabled:
            raise CrceError("HF_HUB_OFFLINE is set, so nothing was sent. Unset it to publish.") from None
        except httpx2.TransportError as error:
            raise CrceError(self._unreachable()) from error

    def _unreachable(self) -> str:
        return f"{self.api.endpoint} cannot be reached. Check the network and HF_ENDPOINT."


class _Refused(CrceError):
    """An error answer of the Hub, with advice."""

    def __init__(self, what: str, error: HfHubHTTPError):
        self.status = error.response.status_code
        wait = error.response.headers.get("retry-after", "")
        self.retry_after = float(wait) if wait.isdigit() else None
        super().__init__(_advise(self.status, what, error))


def _advise(status: int, what: str, error: HfHubHTTPError) -> str:
    said = f" It says: {error.server_message[:200]}" if error.server_message else ""
    match status:
        case 401:
            return f"The Hub does not accept the token (401). Run `hf auth login` again, or renew HF_TOKEN.{said}"
        case 403:
            return f"This token may not write to {what} (403). Use one that can, or open a pull request.{said}"
        case 404:
            return f"The Hub has no {what} that this token can see (404). Check the name.{said}"
        case 409 | 412:
            return _report_moved(what)
        case 413:
            return f"The upload is too large for the Hub (413). Publish fewer formats or concepts at a time.{said}"
        case 429:
            return f"The Hub's rate limit is reached (429). Wait a few minutes, then publish again.{said}"
        case status if status >= 500:
            return f"The Hub failed ({status}). Publish again later; publishing twice changes nothing.{said}"
        case _:
            return f"The Hub refuses this for {what} ({status}).{said}"


def _report_moved(repo: str) -> str:
    return f"{repo} was changed meanwhile; nothing was published. Review the difference, then publish again."


def _make_operations(content: Content) -> list[CommitOperationAdd | CommitOperationDelete]:
    return [CommitOperationDelete(name) if data is None else CommitOperationAdd(name, data)
            for name, data in content.items()]  # fmt: skip


def _list_files(folder: Path) -> dict[str, Path]:
    """The files below a folder, by their path in it."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _describe_run(run: Run) -> dict[str, bytes]:
    """The concepts with their terms, and the report where there is one."""
    specs = {f"specs/{spec.slug}.json": spec_to_dict(spec) for spec in run.job.specs}
    if report := run.report:
        specs["report.json"] = asdict(_without_paths(report))
    return {name: json.dumps(facts, indent=2, ensure_ascii=False).encode() for name, facts in specs.items()}


def _without_paths(report: Report) -> Report:
    """The recorded base may be a path on this machine."""
    return replace(report, base=public_name(report.base), also=tuple(map(_without_paths, report.also)))


def _index(specs: Iterable[ConceptSpec]) -> Specs:
    return {spec.slug: spec for spec in specs}


def _compare(specs: Specs, there: Specs, parent: str) -> Difference:
    new = [spec.name for slug, spec in specs.items() if slug not in there]
    changed = [spec.name for slug, spec in specs.items() if slug in there and there[slug] != spec]
    kept = [spec.name for slug, spec in there.items() if slug not in specs]
    terms = sum(len(_key_terms(spec) ^ _key_terms(there.get(slug))) for slug, spec in specs.items())
    return Difference(tuple(new), tuple(changed), tuple(kept), terms, parent)


def _key_terms(spec: ConceptSpec | None) -> set[tuple]:
    lists = {"corefs": spec.corefs, "retains": spec.retains} if spec else {}
    return {(kind, t.text, t.certainty, t.split) for kind, terms in lists.items() for t in terms}
