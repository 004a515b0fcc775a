"""Other programs: the examples of docs/api.md run as they stand there, against the real app on loopback."""

import ast
import asyncio
import base64
import io
import json
import os
import re
import subprocess
import sys

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

from crce import files, runs
from crce.picture_facts import read_facts
from tests.browser.studio import PATIENCE, end_worker, served, until

GUIDE = (files.ROOT / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def home_of_app(tmp_path_factory):
    return tmp_path_factory.mktemp("studio")


@pytest.fixture(scope="module")
def url(home_of_app):
    without = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    process, url = served({**without, "CRCE_HOME": str(home_of_app)}, "--mcp")
    yield url
    process.terminate()
    process.wait(timeout=PATIENCE / 1000)
    end_worker(home_of_app)


@pytest.fixture
def home(home_of_app, monkeypatch):
    monkeypatch.setenv("CRCE_HOME", str(home_of_app))


def example(language: str, url: str, base) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    assert len(found) == 1
    return found[0].replace("http://127.0.0.1:7860", url).replace("emoji-sd", str(base))


def test_the_example_in_python_runs(url, tiny_sd_dir, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", example("python", url, tiny_sd_dir)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "'lighthouse'" in done.stdout and "Done in" in done.stdout
    assert [path.name for path in sorted(tmp_path.glob("*.png"))] == [
        "a cat.png",
        "a dog.png",
        "before and after.png",
        "what it would do.png",
    ]


def test_the_example_with_curl_runs(url, tiny_sd_dir, tmp_path):
    code = example("sh", url, tiny_sd_dir)
    done = subprocess.run(["bash", "-e", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (propose,), (compare, _) = [json.loads(data) for data in re.findall(r"event: complete\ndata: (.*)", done.stdout)]
    assert propose["by"] and propose["concepts"][0]["corefs"]
    assert compare["rows"][0]["prompt"] == "a dog"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert read_facts(tmp_path / "sheet.png").prompts == ("a dog",) and sheet.width > 2 * 96


def test_the_types_of_the_answers_are_told(url):
    told = Client(url, verbose=False).view_api(return_format="dict")["named_endpoints"]
    assert sorted(told) == ["/compare", "/erase", "/preview", "/propose", "/status"]
    fields = told["/status"]["returns"][0]["type"]["properties"]
    assert fields["state"] == {"type": "string"} and fields["done"] == {"type": "integer"}
    assert [each["parameter_name"] for each in told["/compare"]["parameters"]] == ["run", "prompts", "seeds"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (("/propose", "dog", "animal"), "^category: Input should be"),
        (("/erase", "/etc/passwd.json"), "There is no concept"),
        (("/erase", "nope"), "There is no concept 'nope'. Give a name"),
        (("/erase", {"target": ""}), "The concept"),
        (("/erase", "dog", "magic"), "There is no method"),
        (("/erase", "dog", "crce", "someone/model"), "is not on the server"),
        (("/erase", "dog", "crce", "emoji-sd", "many"), "^steps: Input should be a valid integer"),
        (("/preview", "dog", [], "", "someone/model"), "is not on the server"),
        (("/preview", "dog", ["dog"] * 33), "These are 33 prompts"),
        (("/preview", "dog", ["dog " * 2000]), "^.{0,120} tokens, and emoji-sd reads 32"),
        (("/status", "../../etc"), "There is no run"),
        (("/compare", "nothing"), "There is no run"),
    ],
)
def test_what_cannot_be_done_is_told(url, values, told):
    before, (endpoint, *data) = runs.all_runs(), values
    with pytest.raises(AppError, match=told):
        Client(url, verbose=False).predict(*data, api_name=endpoint)
    assert runs.all_runs() == before


async def wait(*progress: object) -> None:
    """An assistant that wants to know how far a call is."""


async def assist(url: str, *calls: tuple[str, dict]) -> tuple[list, list]:
    """The tools that an assistant is offered, and what it gets for its calls."""
    async with streamable_http_client(f"{url}/gradio_api/mcp/") as (read, write, *_), ClientSession(read, write) as me:
        await me.initialize()
        return (await me.list_tools()).tools, [await me.call_tool(*call, progress_callback=wait) for call in calls]


def test_an_assistant_is_offered_the_endpoints_and_proposes(url):
    calls = [("propose", {"concept": "lighthouse"}), ("status", {"run": "../../etc"})]
    tools, (proposal, refused) = asyncio.run(assist(url, *calls))
    assert sorted(tool.name for tool in tools) == ["compare", "erase", "preview", "propose", "status"]
    inputs = {tool.name: tool.inputSchema for tool in tools}
    assert inputs["propose"]["properties"]["category"]["enum"] == ["object", "ip", "celebrity", "style"]
    assert all(told["description"] for schema in inputs.values() for told in schema["properties"].values())
    (concept,) = ast.literal_eval(proposal.content[0].text)["concepts"]
    assert concept["target"] == "lighthouse" and concept["corefs"] and concept["retains"]
    assert refused.isError and "There is no run" in refused.content[0].text


def test_an_assistant_sees_before_and_after(url, tiny_sd_dir):
    client = Client(url, verbose=False)
    run = client.predict("dog", "crce-uce", str(tiny_sd_dir), api_name="/erase")["run"]
    until(lambda: client.predict(run, api_name="/status")["state"] == "done")
    _, (drawn,) = asyncio.run(assist(url, ("compare", {"run": run, "prompts": ["a dog"]})))
    told, picture, *_ = drawn.content
    assert ast.literal_eval(told.text)["rows"][0]["prompt"] == "a dog"
    assert picture.mimeType == "image/png" and Image.open(io.BytesIO(base64.b64decode(picture.data))).width > 2 * 96


def test_an_assistant_sees_what_erasing_its_proposal_would_do(url, tiny_sd_dir):
    before = runs.all_runs()
    concept = Client(url, verbose=False).predict("lighthouse", api_name="/propose")["concepts"][0]
    _, (drawn,) = asyncio.run(assist(url, ("preview", {"concept": concept, "base": str(tiny_sd_dir)})))
    told, picture, *_ = drawn.content
    rows = ast.literal_eval(told.text)["rows"]
    assert [row["kind"] for row in rows] == ["target"] + 3 * ["coref"] + 3 * ["retain"]
    assert picture.mimeType == "image/png" and Image.open(io.BytesIO(base64.b64decode(picture.data))).width > 2 * 96
    assert runs.all_runs() == before


def test_without_its_package_mcp_is_one_clear_line():
    code = (
        "import sys; sys.modules['mcp'] = None; sys.argv = ['crce-studio', '--mcp']; "
        "from app.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=files.ROOT)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: MCP needs a package that is not here: pip install 'mcp<2'. Then start again."
    )
