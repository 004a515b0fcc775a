"""Publishes to the Hugging Face Hub, in one commit on a known parent.

Publishing twice changes nothing, concurrent changes of others are never lost, and errors say what to do.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from hashlib import sha1, sha256
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token, set_client_factory
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils._http import default_client_factory

from crce import wire
from crce.bases import public_name
from crce.concepts import changelog, dataset, library
from crce.concepts.changelog import ConceptChanges
from crce.concepts.spec import ConceptSpec, spec_to_dict
from crce.environment import check_key, read_url
from crce.errors import CrceError
from crce.evaluation.report import Report
from crce.publishing import before_after, export
from crce.publishing.cards import weights_card
from crce.publishing.export import TensorFile
from crce.redact import hide, public_url, redact
from crce.runs import Run
from crce.wire import Limits

NO_TOKEN = "Log in with `hf auth login` or set HF_TOKEN; nothing has left this machine."
BUSY = (429, 500, 502, 503, 504)
WAITS = (1, 2, 4)  # seconds before each retry
LONGEST_WAIT = 30
# Of one answer: lists of files and single specs are small.
LIMITS = Limits(size=50_000_000, seconds=300, idle=60)
_TEXTS = (".md", ".json")
_BLOCK = 1 << 22  # bytes read at once
OURS = ("specs/", "data/")  # folders of a dataset repository that we manage

T = TypeVar("T")
Specs = dict[str, ConceptSpec]
# A path: the file there. A TensorFile: to be written. None deletes the file.
Content = dict[str, bytes | TensorFile | Path | None]


@dataclass(frozen=True)
class Difference:
    """What publishing would change: names of concepts, the number of terms, and each change. parent: the commit
    compared with."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    kept: tuple[str, ...]
    terms: int
    parent: str
    changes: tuple[ConceptChanges, ...] = ()


@dataclass(frozen=True)
class Publication:
    """All that one commit makes public. What is shown before and what is sent are both made from this value.

    kind: "dataset" or "model". parent: the commit that it builds on, "" for a new repository.
    """

    repo: str
    kind: str
    files: Content
    message: str
    parent: str = ""

    @property
    def card(self) -> str:
        card = self.files["README.md"]
        return card.decode() if isinstance(card, bytes) else ""

    @property
    def sizes(self) -> dict[str, int]:
        return {name: _measure(data) for name, data in self.files.items() if data is not None}

    @property
    def digest(self) -> str:
        """Changes with anything that is shown: texts, and the name and size of each file.

        Weights count by their size: they are not yet written.
        """
        facts = sha256(repr((self.repo, self.kind, self.parent)).encode())
        for name, data in sorted(self.files.items()):
            if isinstance(data, bytes) and name.endswith(_TEXTS):
                told: str | int | None = sha256(data).hexdigest()
            else:
                told = None if data is None else _measure(data)
            facts.update(f"{name} {told}\n".encode())
        return facts.hexdigest()

    def written(self, folder: Path) -> "Publication":
        """The same with its tensors in files below this folder. Raises CrceError if they cannot be written."""
        for name, data in self.files.items():
            if isinstance(data, TensorFile):
                data.write(folder / name)
        paths = {name: folder / name for name, data in self.files.items() if isinstance(data, TensorFile)}
        return replace(self, files={**self.files, **paths})


@dataclass(frozen=True)
class Published:
    """The page of the repository or pull request, the commit, and the tag if one was set."""

    url: str
    commit: str
    tag: str


def full_name(repo: str) -> str:
    """The name of a repository, "user/name". Raises CrceError for anything else."""
    name = repo.strip()
    try:
        validate_repo_id(name)
    except HFValidationError:
        name = ""
    if name.count("/") != 1:
        raise CrceError(f"{repo!r} is not a valid repository name. Write user/name, using letters, digits, - _ and .")
    return name


def prepare_dataset(
    specs: Iterable[ConceptSpec],
    repo: str,
    there: Specs | None = None,
    parent: str = "",
    names: Iterable[str] = (),
    card: str = "",
) -> Publication:
    """What publishing these specs in this repository makes public. Needs no token and no network.

    there: the specs that the repository holds; those of the same name are replaced. names: all of its files; ours that
    are no longer needed are deleted. card: the one that is there, whose changes are kept.

    Raises CrceError if there are no specs.
    """
    chosen = _index(specs)
    dataset.files(chosen.values())
    all_specs = {**(there or {}), **chosen}
    changes = changelog.compare(there.values(), all_specs.values()) if there else ()
    files: Content = dict(dataset.files(all_specs.values(), repo, changelog.render(changes, parent, card)))
    gone = {name: None for name in names if name.startswith(OURS) and name not in files}
    message = f"CorefConcept: {', '.join(spec.name for spec in chosen.values())}"[:200]
    return Publication(repo, "dataset", _hide_secrets({**files, **gone}), message, parent)


def prepare_weights(
    run: Run, repo: str, formats: tuple[str, ...], dataset_repo: str = "", fp16: bool = False
) -> Publication:
    """What publishing a finished run's result makes public: card, concepts, report, pictures and weights.

    Needs no token.

    Raises CrceError for what cannot be.
    """
    (files, error), job = export.prepare(run, formats, fp16), run.job
    drawn = before_after.find_drawn(run)
    pictures: Content = {before_after.FILE: before_after.draw_before_after(drawn)} if drawn else {}
    pictured = tuple(each.prompt for each in drawn)
    card = weights_card(job, run.report, formats, repo, dataset_repo, error, fp16, pictured)
    texts = _hide_secrets({"README.md": card.encode(), **_describe_run(run)})
    message = f"{public_name(job.base)} without {job.spec.name}"[:200]
    return Publication(repo, "model", {**texts, **pictures, **files}, message)


@dataclass(frozen=True)
class Hub:
    """The Hub with one user's token. HF_ENDPOINT selects another server."""

    api: HfApi

    @classmethod
    def connect(cls, token: str = "") -> "Hub":
        """Uses this token or the one stored on this machine. Raises CrceError if there is none."""
        token = check_key(token or get_token() or "", "HF_TOKEN")
        if not token:
            raise CrceError(NO_TOKEN)
        return cls(HfApi(token=hide(token), endpoint=read_url("HF_ENDPOINT") or None))

    def user(self) -> str:
        """The name of the token's owner."""
        return self._try(self.api.whoami, "your account")["name"]

    def owns(self, repo: str) -> bool:
        """Whether the repository belongs to the user or their organisations; otherwise, open a pull request."""
        me = self._try(self.api.whoami, "your account")
        return self.full_name(repo).partition("/")[0] in {me["name"], *(org["name"] for org in me.get("orgs", []))}

    def full_name(self, repo: str) -> str:
        """Turns "CorefConcept" into "you/CorefConcept". Raises CrceError for an invalid name."""
        return full_name(repo if "/" in repo else f"{self.user()}/{repo.strip()}")

    def prepare_dataset(self, specs: Iterable[ConceptSpec], repo: str) -> tuple[Publication, Difference]:
        """What publishing these specs would make public, merged with what is there, and what that changes."""
        chosen, repo = _index(specs), self.full_name(repo)
        head = self._find_head(repo, "dataset")
        names = self._list_files(repo, head) if head else []
        there = self._load_specs(repo, head, names)
        card = self._load_card(repo, head) if "README.md" in names else ""
        return prepare_dataset(chosen.values(), repo, there, head, names, card), _compare(chosen, there, head)

    def difference(self, specs: Iterable[ConceptSpec], repo: str) -> Difference:
        """What publishing these specs would change in a dataset repository, which may not exist yet."""
        return self.prepare_dataset(specs, repo)[1]

    def publish_dataset(
        self,
        specs: Iterable[ConceptSpec],
        repo: str,
        private: bool = True,
        pull_request: bool = False,
        tag: str = "",
        parent: str = "",
        seen: str = "",
    ) -> Published:
        """Adds the specs to the repository in one commit. A pull request gets no tag.

        parent: the commit that the user saw the difference to. seen: the digest of the publication that was shown. If
        either has changed since, nothing is published. Raises CrceError on any failure.
        """
        specs = list(specs)
        dataset.files(specs)  # raises an error before anything is sent
        made, _ = self.prepare_dataset(specs, repo)
        if parent and parent != made.parent:
            raise CrceError(_report_moved(made.repo))
        return self.publish(made, private, pull_request, tag, seen)

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
        seen: str = "",
    ) -> Published:
        """Publishes a finished run's result with a model card, its concepts and its report, in one commit.

        Raises CrceError on any failure.
        """
        made = prepare_weights(run, self.full_name(repo), formats, dataset_repo, fp16)
        return self.publish(made, private, pull_request, tag, seen)

    def publish(
        self, made: Publication, private: bool = True, pull_request: bool = False, tag: str = "", seen: str = ""
    ) -> Published:
        """Sends a publication in one commit. seen: the digest of the one that was shown, if any.

        Raises CrceError on any failure; it says what was done until then.
        """
        if seen and seen != made.digest:
            raise CrceError(_report_unseen(made))
        head = self._find_head(made.repo, made.kind)
        if made.kind == "dataset" and head != made.parent:
            raise CrceError(_report_moved(made.repo))
        with tempfile.TemporaryDirectory() as folder:
            return self._send(made.written(Path(folder)), head, private, pull_request, tag)

    def _send(self, made: Publication, head: str, private: bool, pull_request: bool, tag: str) -> Published:
        if head:
            return self._publish(made, head, pull_request, tag)
        self._check_card(made)
        head = self._create_repo(made.repo, made.kind, private)
        try:
            return self._publish(made, head, pull_request, tag)
        except _Untagged:
            raise
        except CrceError as error:
            place = self._build_url(made.repo, made.kind)
            raise CrceError(f"{error} The new repository {place} was made and is empty: publish again, or delete it.")\
                from error  # fmt: skip

    def _check_card(self, made: Publication) -> None:
        """Asks the Hub as a commit does, but before there is a repository, which would be left empty."""
        card = made.files.get("README.md")
        if isinstance(card, bytes):
            text = card.decode("utf-8")
            self._try(lambda: self.api._validate_yaml(text, repo_type=made.kind), made.repo)

    def _publish(self, made: Publication, head: str, pull_request: bool, tag: str) -> Published:
        tagged = "" if pull_request else tag
        exists = self._check_tag(made, head, tagged)

        def commit():
            # An attempt uses up its operations, so each attempt creates new ones.
            return self.api.create_commit(
                made.repo, _make_operations(made.files), commit_message=made.message, repo_type=made.kind,
                create_pr=pull_request, parent_commit=head,
            )  # fmt: skip

        # If the answer to a commit is lost, a retry cannot commit twice: the parent is no longer the head. A pull
        # request would be opened twice, so it is retried only if the Hub did nothing.
        done = self._try(commit, made.repo, again=(429,) if pull_request else BUSY)
        if tagged and not exists:
            self._create_tag(made, tagged, done.oid)
        return Published(done.pr_url or self._build_url(made.repo, made.kind), done.oid, tagged)

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

    def _load_card(self, repo: str, revision: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = self._try(
                lambda: self.api.hf_hub_download(
                    repo, "README.md", repo_type="dataset", revision=revision, local_dir=folder
                ),
                repo,
            )
            return Path(path).read_text(encoding="utf-8", errors="replace")

    def _check_tag(self, made: Publication, head: str, tag: str) -> bool:
        """Whether the tag is there already, on this very content. Tags are never moved: raises CrceError otherwise."""
        if not tag:
            return False
        refs = self._try(lambda: self.api.list_repo_refs(made.repo, repo_type=made.kind), made.repo)
        target = next((ref.target_commit for ref in refs.tags if ref.name == tag), "")
        if target and not (target == head and self._holds(made, head)):
            raise CrceError(f"{made.repo} has a tag {tag!r} already. Nothing was published; choose another tag.")
        return bool(target)

    def _holds(self, made: Publication, revision: str) -> bool:
        """Whether the repository has exactly these files at the revision."""
        there = self._try(
            lambda: self.api.get_paths_info(made.repo, list(made.files), revision=revision, repo_type=made.kind),
            made.repo,
        )
        ids = {each.path: each.lfs.sha256 if each.lfs else each.blob_id for each in there if isinstance(each, RepoFile)}
        return all(
            name not in ids if data is None else ids.get(name) in _ids(data)
            for name, data in made.files.items()
            if not isinstance(data, TensorFile)
        )

    def _create_tag(self, made: Publication, tag: str, commit: str) -> None:
        try:
            self._try(
                lambda: self.api.create_tag(made.repo, tag=tag, revision=commit, repo_type=made.kind, exist_ok=True),
                made.repo,
            )
        except CrceError as error:
            place = self._build_url(made.repo, made.kind)
            raise _Untagged(f"{place} was published as {commit[:10]}, but without the tag {tag!r}: {error}") from error

    def _build_url(self, repo: str, kind: str) -> str:
        return f"{public_url(self.api.endpoint)}/{'datasets/' if kind == 'dataset' else ''}{repo}"

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
        place = public_url(self.api.endpoint)
        bounded = wire.limits.set(LIMITS)
        try:
            return call()
        except CrceError:
            raise
        except HfHubHTTPError as error:
            raise _Refused(what, error) from error
        except OfflineModeIsEnabled:
            raise CrceError("HF_HUB_OFFLINE is set, so nothing was sent. Unset it to publish.") from None
        # Whatever else the library raises: a proxy's page where it expects JSON, a card that the Hub finds invalid.
        except Exception as error:
            match _find_reason(error):
                case HfHubHTTPError() as refusal:
                    raise _Refused(what, refusal) from error
                case wire.Exceeded() as exceeded:
                    raise CrceError(f"{place} {exceeded}. Check HF_ENDPOINT, or try again.") from error
                case ValueError() as invalid if "README.md" in str(invalid):
                    said = " ".join(redact(str(invalid)).split())[:300]
                    raise CrceError(f"The Hub refuses the card of {what}, and nothing was published: {said}") from error
                case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.ProxyError() | None:
                    raise CrceError(f"{place} cannot be reached. Check the network and HF_ENDPOINT.") from error
                case httpx2.TransportError():
                    raise CrceError(
                        f"The connection to {place} broke off. Check the network, then try again: publishing twice "
                        "changes nothing."
                    ) from error
                case other if "(404" in str(other) and "xet-write-token" in str(other):
                    raise CrceError(
                        f"{place} does not take large files by Xet. Set HF_HUB_DISABLE_XET=1 to send them by LFS, and "
                        "publish again."
                    ) from error
                case other:
                    said = " ".join(redact(str(other)).split())[:300]
                    raise CrceError(
                        f"{place} gives no usable answer for {what} ({type(other).__name__}: {said}). "
                        "Check HF_ENDPOINT, or try again later."
                    ) from error
        finally:
            wire.limits.reset(bounded)


def _find_reason(error: Exception) -> BaseException | None:
    """Of a failed download or upload, what the library wraps: the Hub's answer, or what became of the connection."""
    if isinstance(error, LocalEntryNotFoundError):
        return error.__cause__
    return error.__cause__ or error if isinstance(error, RuntimeError) else error


def _make_client() -> httpx2.Client:
    """The library's own client, whose answers are bounded while we call it."""
    client = default_client_factory()
    hooks = client.event_hooks
    client.event_hooks = {
        "request": [*hooks["request"], wire.prepare],
        "response": [*hooks["response"], wire.bind],
    }
    return client


set_client_factory(_make_client)


class _Untagged(CrceError):
    """The commit is public, and the tag could not be set."""


class _Refused(CrceError):
    """An error answer of the Hub, with advice."""

    def __init__(self, what: str, error: HfHubHTTPError):
        self.status = error.response.status_code
        wait = error.response.headers.get("retry-after", "")
        self.retry_after = float(wait) if wait.isdigit() else None
        super().__init__(_advise(self.status, what, error))


def _advise(status: int, what: str, error: HfHubHTTPError) -> str:
    said = f" It says: {redact(error.server_message)[:200]}" if error.server_message else ""
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


def _report_unseen(made: Publication) -> str:
    look = "Press Preview changes, look at it" if made.kind == "dataset" else "Look at the card again"
    return (
        f"What would be published in {made.repo} is not what was shown: your choice, or what the repository holds, has "
        f"changed. Nothing was published. {look}, then publish."
    )


def _hide_secrets(files: Content) -> Content:
    """A note or a name may repeat what a server echoed."""
    return {
        name: redact(data.decode()).encode() if isinstance(data, bytes) and name.endswith(_TEXTS) else data
        for name, data in files.items()
    }


def _make_operations(content: Content) -> list[CommitOperationAdd | CommitOperationDelete]:
    return [CommitOperationDelete(name) if data is None else CommitOperationAdd(name, data)
            for name, data in content.items() if not isinstance(data, TensorFile)]  # fmt: skip


def _measure(data: bytes | TensorFile | Path) -> int:
    match data:
        case bytes():
            return len(data)
        case TensorFile():
            return data.size
    return data.stat().st_size


def _ids(data: bytes | Path) -> set[str]:
    """The names that LFS and git give to this content."""
    size = len(data) if isinstance(data, bytes) else data.stat().st_size
    hashes = sha256(), sha1(b"blob %d\0" % size)
    with BytesIO(data) if isinstance(data, bytes) else open(data, "rb") as file:
        while block := file.read(_BLOCK):
            for each in hashes:
                each.update(block)
    return {each.hexdigest() for each in hashes}


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
    changes = changelog.compare(there.values(), {**there, **specs}.values())
    return Difference(tuple(new), tuple(changed), tuple(kept), terms, parent, changes)


def _key_terms(spec: ConceptSpec | None) -> set[tuple]:
    lists = {"corefs": spec.corefs, "retains": spec.retains} if spec else {}
    return {(kind, t.text, t.certainty, t.split) for kind, terms in lists.items() for t in terms}
