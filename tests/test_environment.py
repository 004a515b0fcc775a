"""Proxies, keys and addresses as people paste them: the programs start, or say what is wrong in one line."""

import os
import subprocess
import sys
import time
import urllib.request

import httpx2
import pytest

from crce import environment
from crce.errors import CrceError
from crce.files import ROOT
from tests.scripted_llm import ScriptedLLM
from tests.servers import find_port, serving

OURS = ("HTTP", "HTTPS", "ALL", "NO", "OPENAI", "HF_", "CRCE_MODEL", "CRCE_AUTH", "GRADIO_SERVER")
DEAD = "http://127.0.0.1:9"


def settings(**given):
    """The environment of a program with these settings and no others that concern us."""
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith(OURS)}
    return {**clean, **given}


def crce(*arguments, **given):
    """Exit code, stdout and stderr of the command line."""
    command = [sys.executable, "-m", "crce", *arguments]
    done = subprocess.run(command, env=settings(**given), capture_output=True, text=True, cwd=ROOT, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def clean(monkeypatch):
    """Without any settings of this machine; what a test sets is undone."""
    for name in [*environment.PROXIES, *environment.URLS, *environment.KEYS, "NO_PROXY", "no_proxy"]:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    "proxies",
    [{"HTTP_PROXY": DEAD, "http_proxy": DEAD, "ALL_PROXY": "socks5://127.0.0.1:7890", "NO_PROXY": "example.org"}],
)
def test_the_app_starts_with_proxies_that_lead_nowhere(proxies):
    port = find_port()
    command = [sys.executable, "app.py", "--port", str(port)]
    process = subprocess.Popen(command, env=settings(**proxies), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        while process.poll() is None:
            try:
                assert b"CRCE Studio" in direct.open(f"http://127.0.0.1:{port}", timeout=60).read()
                # The guard is in its place.
                assert (
                    httpx2.get(f"http://127.0.0.1:{port}/config", headers={"host": "evil.example"}).status_code == 421
                )
                upload = {"url": f"http://127.0.0.1:{port}/gradio_api/upload", "files": {"files": ("x.csv", b"a")}}
                assert httpx2.post(**upload, headers={"origin": "http://evil.example"}).status_code == 403
                assert httpx2.post(**upload).status_code == 200
                break
            except OSError:
                time.sleep(0.3)
        # It has asked itself whether it runs, and goes on.
        time.sleep(1)
        assert process.poll() is None, process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_a_local_model_is_asked_directly():
    llm = ScriptedLLM()
    with serving(llm.app) as url:
        proxies = {"HTTP_PROXY": DEAD, "ALL_PROXY": "socks5h://127.0.0.1:9"}
        given = {"OPENAI_BASE_URL": f" {url}/v1\n", "OPENAI_API_KEY": "sk-canary-1\n", "CRCE_MODEL": "tiny"}
        code, out, err = crce("propose", "dog", **given, **proxies)
    assert code == 0 and "name 0" in out, err
    assert llm.keys == ["Bearer sk-canary-1"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"OPENAI_API_KEY": "“sk-canary-1”", "CRCE_MODEL": "m"}, "OPENAI_API_KEY has '“' as character 1"),
        ({"OPENAI_BASE_URL": "“http://127.0.0.1:1/v1”", "CRCE_MODEL": "m"}, "OPENAI_BASE_URL is not an address"),
        ({"ALL_PROXY": "socks4://127.0.0.1:1"}, "ALL_PROXY is not a proxy's address"),
        ({"https_proxy": "http://[half"}, "https_proxy is not a proxy's address"),
        ({"HF_ENDPOINT": "http://[half"}, "HF_ENDPOINT is not an address"),
    ],
)
def test_what_cannot_be_meant_is_one_line(given, says):
    code, out, err = crce("propose", "dog", **given)
    assert (code, out) == (1, "") and err.startswith(f"error: {says}") and err.count("\n") == 1
    assert "canary" not in err


def test_a_token_with_curly_quotes_is_one_line():
    code, _, err = crce("publish", "dataset", "X", "dog", HF_TOKEN="“hf_canary_1”", HF_ENDPOINT=DEAD)
    assert code == 1 and err.startswith("error: HF_TOKEN has '“' as character 1") and err.count("\n") == 1


def test_values_are_made_usable_for_all_libraries(clean):
    clean.setenv("ALL_PROXY", "socks://127.0.0.1:7890/ ")
    clean.setenv("http_proxy", "10.0.0.1:3128")
    clean.setenv("no_proxy", ".example.org")
    clean.setenv("HF_TOKEN", "hf_canary_1\r\n")
    environment.prepare()
    assert os.environ["ALL_PROXY"] == "socks5://127.0.0.1:7890/"
    assert os.environ["http_proxy"] == "http://10.0.0.1:3128"
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == ".example.org,127.0.0.1,localhost,::1"
    assert os.environ["HF_TOKEN"] == "hf_canary_1"


@pytest.mark.parametrize("key", ["sk a-canary", "sk-cänary", "sk-canary\n#", "sk-\0canary", "‘sk-canary’", "sk-​canary"])
def test_no_library_sees_a_key_that_no_header_can_hold(clean, key):
    with pytest.raises(CrceError, match=r"as character \d+, which no key contains") as error:
        environment.check_key(key, "OPENAI_API_KEY")
    assert "nary" not in str(error.value)


@pytest.mark.parametrize("url", ["nonsense", "http://[", "http://a b/v1", "ftp://a/v1", "http://:1/v1", "http://a:x/v1",
                                 "http://a:0/v1", "'http://a/v1'", "https://a/v1\nb"])  # fmt: skip
def test_an_address_is_checked_where_it_is_read(clean, url):
    clean.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(CrceError, match="OPENAI_BASE_URL is not an address"):
        environment.read_url("OPENAI_BASE_URL")
