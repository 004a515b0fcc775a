"""What is refused before any handler of the page sees it: other sites, rebound names, and too many uploads."""

import secrets
from collections.abc import Callable, Iterable
from http.cookies import SimpleCookie
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.session.people import COOKIE
from crce.environment import LOOPBACK

MAX_UPLOADED = 200_000_000  # bytes of uploads that are kept at a time; Gradio deletes them after a day
_READS = ("GET", "HEAD", "OPTIONS")


class Guard:
    """ASGI middleware.

    hosts: the names under which the app may be asked for, None for any. A page of another site can give its own name
    the address 127.0.0.1, but not our name. token: whether each browser gets a random one; framed: also inside
    another site's page. uploads: their folder.
    """

    def __init__(
        self, app: ASGIApp, hosts: Iterable[str] | None, token: bool, uploads: Callable[[], str], framed: bool = False
    ):
        self._app, self._token, self._uploads, self._framed = app, token, uploads, framed
        self._hosts = None if hosts is None else {host.strip("[]").lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        if refusal := self._refuse(scope, headers):
            return await refusal(scope, receive, send)
        if self._token and COOKIE not in SimpleCookie(headers.get("cookie", "")):
            send = _with_token(send, self._framed)
        await self._app(scope, receive, send)

    def _refuse(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return PlainTextResponse("This server answers only under the address that it was started with.", 421)
        if scope.get("method") in _READS:
            return None
        if not _is_same_site(headers):
            return PlainTextResponse("A page of another site may not do this.", 403)
        if scope["path"].endswith("/upload") and _measure(Path(self._uploads())) > MAX_UPLOADED:
            return PlainTextResponse("Too much was uploaded today. Try again tomorrow.", 413)
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on this host."""
    try:
        return host in LOOPBACK or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_same_site(headers: Headers) -> bool:
    """Programs other than browsers send neither of the two headers, and carry no one's login by accident."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    # A reverse proxy may give our own name apart.
    ours = {headers.get(name, "").lower() for name in ("host", "x-forwarded-host")}
    return origin is None or urlsplit(origin).netloc.lower() in ours - {""}


def _name(host: str) -> str:
    return (urlsplit(f"//{host}").hostname or "").lower()


def _measure(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _with_token(send: Send, framed: bool) -> Send:
    # In a frame a browser keeps only a cookie that is sent encrypted, and apart for each site around it.
    site = "SameSite=None; Secure; Partitioned" if framed else "SameSite=Lax"

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            value = f"{COOKIE}={secrets.token_urlsafe(24)}; Path=/; HttpOnly; {site}; Max-Age=31536000"
            MutableHeaders(scope=message).append("set-cookie", value)
        await send(message)

    return sending
