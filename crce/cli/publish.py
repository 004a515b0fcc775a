"""Commands that publish to the Hugging Face Hub."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from crce.cli import terminal
from crce.cli.options import AsJson, Formats, Fp16, RunName
from crce.cli.runs import open_run
from crce.concepts.library import find_concept, publishable

if TYPE_CHECKING:
    from crce.publishing.hub import Difference

publish = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Publish concepts or erased weights on the Hugging Face Hub.",
)


Repo = Annotated[str, typer.Argument(help="The repository: user/name, or just a name under your account.")]
Private = Annotated[bool, typer.Option("--private/--public", help="Visibility of a repository that is created now.")]
PullRequest = Annotated[bool, typer.Option("--pull-request", help="Open a pull request instead of committing.")]
Tag = Annotated[str, typer.Option(help="A tag for this version, such as v1.")]


@publish.command("dataset")
def publish_dataset(
    repo: Repo,
    concept: Annotated[
        list[str] | None, typer.Argument(help="Concepts.", show_default="CorefConcept and your own")
    ] = None,
    private: Private = True,
    pull_request: PullRequest = False,
    tag: Tag = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and publish nothing.")] = False,
    as_json: AsJson = False,
):
    """Publish concepts as a dataset with a card, in one commit. Other concepts in the repository are kept.

    First it says what changes in the repository; the card keeps that too.

    Examples:

    ```
    python -m crce publish dataset CorefConcept dog "bat (animal)"
    python -m crce publish dataset someone/CorefConcept dog --pull-request
    ```
    """
    from crce.concepts.dataset import find_unsplit
    from crce.publishing.hub import Hub

    specs = [find_concept(name) for name in concept] if concept else list(publishable().values())
    terminal.warn(find_unsplit(specs))
    hub = Hub.connect()
    made, difference = hub.prepare_dataset(specs, repo)
    terminal.tell(_describe(difference))
    if dry_run:
        return terminal.say(asdict(difference), "Nothing was published.", as_json)
    done = hub.publish(made, private, pull_request, tag)
    terminal.say(asdict(done), done.url, as_json)


def _describe(difference: "Difference") -> list[str]:
    counts = len(difference.new), len(difference.changed), len(difference.kept)
    head = "{} new concepts, {} changed, {} left as they are".format(*counts)
    lines = [f"{each.name}: {line}" for each in difference.changes for line in (each.verb, *each.lines)]
    return [head, *lines]


@publish.command("weights")
def publish_weights(
    run: RunName,
    repo: Repo,
    private: Private = True,
    pull_request: PullRequest = False,
    tag: Tag = "",
    dataset: Annotated[str, typer.Option(help="The Hub dataset that holds the terms, for the card.")] = "",
    formats: Formats = None,
    fp16: Fp16 = False,
    as_json: AsJson = False,
):
    """Publish a finished run's result with a model card, its concepts and its report, in one commit.

    The formats are those of `export`. The files of a pipeline are the repository itself.

    Examples:

    ```
    python -m crce publish weights 20260801-093015-dog-3fa2 emoji-sd-without-dog
    python -m crce publish weights out/dog emoji-sd-without-dog --format pipeline --format lora
    ```
    """
    from crce.publishing.export import default_formats
    from crce.publishing.hub import Hub

    found = open_run(run)
    chosen = tuple(formats or default_formats(found.job.config.result.kind))
    done = Hub.connect().publish_weights(found, repo, chosen, private, pull_request, tag, dataset, fp16)
    terminal.say(asdict(done), done.url, as_json)
