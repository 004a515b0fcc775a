"""What the environment gives, checked where it is read: keys, addresses and proxies with stray characters.

Values that are pasted come with line breaks, spaces and curly quotes. White space around a value is dropped; anything
else that cannot be meant is one clear line. Nothing here shows a value that may be secret.
"""

import os
from contextlib import suppress
from urllib.parse import urlsplit

from crce.errors import CrceError
from crce.redact import KEYS, PROXIES, URLS

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SPACE, ZERO_GPU, OAUTH = "SPACE_ID", "SPACES_ZERO_GPU", "OAUTH_CLIENT_ID"  # set by Hugging Face Spaces alone
_SCHEMES = ("http", "https", "socks5", "socks5h")


def prepare() -> None:
    """Makes the environment usable for every library of this process and those that it starts.

    Drops white space around values, and exempts this machine's own addresses from any proxy. Raises CrceError for a
    proxy or Hub address that the libraries would fail on when they are imported.
    """
    for name in (*KEYS, *URLS):
        if name in os.environ:
            os.environ[name] = os.environ[name].strip()
    for name in PROXIES:
        _prepare_proxy(name)
    read_url("HF_ENDPOINT")
    bypass_proxy(*LOOPBACK)


def on_space() -> bool:
    """Whether this is a Hugging Face Space: reached by anyone, under its own domain, on a disk that is emptied."""
    return bool(os.environ.get(SPACE))


def on_zero_gpu() -> bool:
    """Whether this is a Space where a GPU is there for single calls only (`crce.zerogpu`)."""
    return on_space() and bool(os.environ.get(ZERO_GPU))


def bypass_proxy(*hosts: str) -> None:
    """Never asks these hosts through a proxy."""
    # Libraries read one spelling or the other.
    both = [os.environ.get(name, "") for name in ("NO_PROXY", "no_proxy")]
    listed = [host.strip() for value in both for host in value.split(",") if host.strip()]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(dict.fromkeys([*listed, *hosts]))


def read_word(name: str) -> str:
    """The value without white space around it, "" if it is not set."""
    return os.environ.get(name, "").strip()


def read_key(name: str) -> str:
    """A key or token, "" if there is none. Raises CrceError for characters that no key has."""
    return check_key(read_word(name), name)


def check_key(key: str, name: str) -> str:
    """Raises CrceError for characters that no key has; `name` says where it comes from."""
    for place, letter in enumerate(key, 1):
        if not "!" <= letter <= "~":
            raise CrceError(
                f"{name} has {letter!r} as character {place}, which no key contains. "
                "Set it again without quotes, spaces or line breaks."
            )
    return key


def read_url(name: str) -> str:
    """An address such as http://127.0.0.1:1234/v1, "" if there is none. Raises CrceError for anything else."""
    url = read_word(name)
    if url and not _is_url(url, ("http", "https")):
        raise CrceError(f"{name} is not an address. Set it to one such as https://example.org/v1, without quotes.")
    return url


def _prepare_proxy(name: str) -> None:
    proxy = os.environ.get(name, "")
    if not proxy:
        return
    # Desktop settings write socks://, which means version 5.
    full = proxy.replace("socks://", "socks5://", 1) if "://" in proxy else f"http://{proxy}"
    if not _is_url(full, _SCHEMES):
        known = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise CrceError(f"{name} is not a proxy's address. Set it to one that starts with {known}, or unset it.")
    os.environ[name] = full


def _is_url(url: str, schemes: tuple[str, ...]) -> bool:
    # ASCII without spaces, quotes and control characters: what else an address holds is written with %.
    if any(not "!" <= letter <= "~" or letter in "\"'<>`" for letter in url):
        return False
    with suppress(ValueError):
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    return False
