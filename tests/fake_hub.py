"""A Hub on loopback: repositories with commits, pull requests and tags, over the real protocol.

`fail["commit"] = [503, 429]` lets the next two requests of that route fail so; a response in place of a status is sent
as it is. `cut["commit"] = ["reset"]` breaks off the next request of that route in the middle of the body that it sends
or asks for; "end" closes the connection in order. Tokens: "hf_good", "hf_readonly". `lfs = {}` sends large kinds of
files through LFS, as the Hub does; `faults` are what it finds in a card. A file can be read in ranges.
"""

import asyncio
import base64
import hashlib
import json
import socket
import struct
from collections import defaultdict
from pathlib import Path, PurePosixPath

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from tests import xet_storage
from tests.xet_storage import XetStorage

# Each is a part of its addresses; any other address is "info".
ROUTES = ("xet-write-token", "xet", "whoami", "create", "validate-yaml", "refs", "tree", "preupload", "commit", "tag",
          "resolve", "lfs-storage", "lfs-verify", "lfs")  # fmt: skip
LARGE = (".safetensors", ".parquet", ".png")
KINDS = {"dataset": "datasets/", "model": ""}


class Repo:
    """Commits as (id, files), oldest first; each commit has all files.

    gated: nobody may have its files. paused: a download stops in the middle of a file until it is False. downloads:
    files of weights that were sent. ranges: parts that were sent.
    """

    def __init__(self, private: bool, gated: bool = False):
        self.gated, self.paused, self.downloads, self.ranges = gated, False, 0, 0
        self.large: dict[str, str] = {}  # what LFS has: the digest by path
        self.private, self.tags, self.pull_requests, self.messages = private, {}, [], []
        self.commits = [("0" * 40, {".gitattributes": b""})]

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1]

    def at(self, revision: str) -> tuple[str, dict[str, bytes]]:
        revision = self.tags.get(revision, revision)
        return self.commits[-1] if revision == "main" else next(c for c in self.commits if c[0] == revision)

    @classmethod
    def of(cls, folder: Path, gated: bool = False) -> "Repo":
        """A repository with the files of a folder."""
        repo = cls(private=False, gated=gated)
        repo.change({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
        return repo

    def change(self, files: dict[str, bytes]) -> str:
        """Someone else's commit."""
        text = repr([self.head, sorted(files.items())]).encode()
        self.commits.append((hashlib.sha1(text).hexdigest(), files))
        return self.head


class FakeHub:
    def __init__(self):
        self.repos: dict[tuple[str, str], Repo] = {}
        self.fail: dict[str, list[int | Response]] = defaultdict(list)
        self.cut: dict[str, list[str]] = defaultdict(list)
        self.calls: list[str] = []
        self.lfs: dict[str, bytes] | None = None
        self.xet: XetStorage | None = None
        self.faults: list[str] = []
        self.routes = FastAPI()
        self.routes.middleware("http")(self.guard)
        api = "/api/{kind}s/{user}/{name}"
        for method, path, handler in [
            ("GET", "/api/whoami-v2", self.whoami), ("POST", "/api/repos/create", self.create),
            ("POST", "/api/validate-yaml", self.validate), ("GET", api, self.info),
            ("GET", api + "/revision/{revision}", self.info), ("GET", api + "/refs", self.refs),
            ("GET", api + "/tree/{revision}", self.tree),
            ("GET", api + "/tree/{revision}/{folder:path}", self.tree),
            ("POST", api + "/paths-info/{revision}", self.paths_info),
            ("POST", api + "/preupload/{revision}", self.preupload),
            ("POST", api + "/commit/{revision}", self.commit), ("POST", api + "/tag/{revision}", self.tag),
            ("POST", "/datasets/{user}/{name}.git/info/lfs/objects/batch", self.lfs_batch),
            ("POST", "/{user}/{name}.git/info/lfs/objects/batch", self.lfs_batch),
            ("PUT", "/lfs-storage/{oid}", self.lfs_put), ("POST", "/lfs-verify", self.lfs_verify),
            ("GET", "/datasets/{user}/{name}/resolve/{revision}/{path:path}", self.resolve_dataset),
            ("HEAD", "/datasets/{user}/{name}/resolve/{revision}/{path:path}", self.resolve_dataset),
            ("GET", "/{user}/{name}/resolve/{revision}/{path:path}", self.resolve_model),
            ("HEAD", "/{user}/{name}/resolve/{revision}/{path:path}", self.resolve_model),
        ]:  # fmt: skip
            self.routes.add_api_route(path, handler, methods=[method])

    def take_xet(self) -> XetStorage:
        """From now on, large files may come by Xet too."""
        self.lfs, self.xet = {}, XetStorage()
        self.xet.add_routes(self.routes)
        return self.xet

    async def app(self, scope, receive, send):
        """What is served: the routes, behind a wire that breaks off where `cut` says so."""
        route = name_route(scope["path"]) if scope.get("method") in ("GET", "POST", "PUT") else ""
        if not self.cut[route]:
            return await self.routes(scope, receive, send)
        transport = send.__self__.transport  # uvicorn's: no message of ASGI drops a connection
        if self.cut[route].pop(0) == "reset":
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        async def send_half(message):
            if body := message.get("body"):
                await send({**message, "body": body[: len(body) // 2], "more_body": True})
                transport.close()
                await asyncio.sleep(0)  # uvicorn notices, and ignores the rest
            else:
                await send(message)

        if scope["method"] == "GET":
            return await self.routes(scope, receive, send_half)
        await receive()  # the first part of the body
        transport.close()
        while (await receive())["type"] != "http.disconnect":
            pass

    async def guard(self, request: Request, call_next):
        """Failures asked for, tokens, rights; then the route itself."""
        route = name_route(request.url.path)
        self.calls.append(route)
        if self.fail[route]:
            status = self.fail[route].pop(0)
            if isinstance(status, Response):
                return status
            return error(status, f"{status} as asked for", {"retry-after": "0"} if status == 429 else {})
        if route == "lfs-storage":
            return await call_next(request)  # signed by its address, as S3 is
        if request.url.path.startswith("/xet/"):
            given = request.headers.get("authorization") == f"Bearer {xet_storage.TOKEN}"
            return await call_next(request) if given else error(401, "No token of this storage")
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in ("hf_good", "hf_readonly"):
            return error(401, "Invalid credentials in Authorization header")
        if token == "hf_readonly" and route in ("create", "commit", "tag"):
            return error(403, "You need write access")
        return await call_next(request)

    def whoami(self):
        return {"type": "user", "name": "tester", "orgs": [{"name": "lab"}]}

    async def create(self, request: Request):
        body = await request.json()
        user = body["organization"] or "tester"
        key = (body.get("type", "model"), f"{user}/{body['name']}")
        if key in self.repos:
            return JSONResponse({"error": "exists", "url": f"{request.base_url}{KINDS[key[0]]}{key[1]}"}, 409)
        if user not in ("tester", "lab"):
            return error(403, f"You do not have the rights to create a repo under {user}")
        self.repos[key] = Repo(private=body.get("visibility") == "private")
        return {"url": f"{request.base_url}{KINDS[key[0]]}{key[1]}"}

    def validate(self):
        found = {"errors": [{"message": fault} for fault in self.faults], "warnings": []}
        return JSONResponse(found, 400 if self.faults else 200)

    def info(self, kind: str, user: str, name: str):
        repo = self.repos.get((kind, f"{user}/{name}"))
        if repo is None:
            return error(404, "Repository not found", {"X-Error-Code": "RepoNotFound"})
        siblings = [{"rfilename": path, "size": len(data)} for path, data in repo.files.items()]
        return {"id": f"{user}/{name}", "sha": repo.head, "private": repo.private, "siblings": siblings, "tags": []}

    def refs(self, kind: str, user: str, name: str):
        repo = self.repos[kind, f"{user}/{name}"]
        tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in repo.tags.items()]
        return {"branches": [], "converts": [], "tags": tags}

    def tree(self, kind: str, user: str, name: str, revision: str, folder: str = ""):
        files = self.repos[kind, f"{user}/{name}"].at(revision)[1]
        inside = {path: data for path, data in files.items() if path.startswith(f"{folder}/" if folder else "")}
        return folders(inside, folder) + [self.entry(path, data) for path, data in inside.items()]

    async def paths_info(self, kind: str, user: str, name: str, revision: str, request: Request):
        files, wanted = self.repos[kind, f"{user}/{name}"].at(revision)[1], (await request.form()).getlist("paths")
        return [self.entry(path, files[path]) for path in wanted if path in files]

    async def preupload(self, kind: str, user: str, name: str, request: Request):
        files = self.repos[kind, f"{user}/{name}"].files
        return {"files": [
            {"path": f["path"], "uploadMode": self.mode(f["path"]), "shouldIgnore": False,
             "oid": self.oid(f["path"], files[f["path"]]) if f["path"] in files else None}
            for f in (await request.json())["files"]
        ]}  # fmt: skip

    def mode(self, path: str) -> str:
        return "regular" if self.lfs is None or not path.endswith(LARGE) else "lfs"

    def oid(self, path: str, data: bytes) -> str:
        return git_id(data) if self.mode(path) == "regular" else hashlib.sha256(data).hexdigest()

    def entry(self, path: str, data: bytes) -> dict:
        told = {"oid": self.oid(path, data), "size": len(data)}
        large = {} if self.mode(path) == "regular" else {"lfs": {**told, "pointerSize": 130}}
        return {"type": "file", "path": path, **told, **large}

    async def lfs_batch(self, request: Request):
        base, objects = request.base_url, (await request.json())["objects"]
        missing = {"upload": {"href": f"{base}lfs-storage/{{oid}}"}, "verify": {"href": f"{base}lfs-verify"}}
        return {"transfer": "basic", "objects": [
            each | ({} if each["oid"] in self.lfs else {"actions": {
                name: {"href": action["href"].format(**each)} for name, action in missing.items()
            }})
            for each in objects
        ]}  # fmt: skip

    async def lfs_put(self, oid: str, request: Request):
        data = await request.body()
        if hashlib.sha256(data).hexdigest() != oid:
            return error(400, "The content does not match its digest")
        self.lfs[oid] = data
        return {}

    async def lfs_verify(self, request: Request):
        asked = await request.json()
        return {} if len(self.lfs.get(asked["oid"], b"")) == asked["size"] else error(404, "It was not uploaded")

    async def commit(self, kind: str, user: str, name: str, request: Request):
        repo = self.repos[kind, f"{user}/{name}"]
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        header, pull_request = lines[0]["value"], "create_pr" in request.query_params
        if not pull_request and user not in ("tester", "lab"):
            return error(403, "You may not commit here")
        if header.get("parentCommit") not in (None, repo.head):
            return error(412, "A commit has happened since. Please refresh and try again.")
        for line in lines[1:]:
            if line["key"] == "lfsFile":
                if self.xet:
                    self.lfs.update(self.xet.files)
                if (oid := line["value"]["oid"]) not in (self.lfs or {}):
                    return error(400, "A file of the commit was not uploaded")
                content = base64.b64encode(self.lfs[oid]).decode()
                repo.large[line["value"]["path"]], line["value"]["content"] = oid, content
        files = changed(repo.files, lines[1:])
        repo.messages.append(header["summary"])
        page = f"{request.base_url}{KINDS[kind]}{user}/{name}"
        if pull_request:
            repo.pull_requests.append(files)
            number = len(repo.pull_requests)
            return {"commitUrl": page, "commitOid": "f" * 40, "pullRequestUrl": f"{page}/discussions/{number}"}
        commit = repo.change(files)
        return {"commitUrl": f"{page}/commit/{commit}", "commitOid": commit, "pullRequestUrl": None}

    async def tag(self, kind: str, user: str, name: str, revision: str, request: Request):
        repo, tag = self.repos[kind, f"{user}/{name}"], (await request.json())["tag"]
        if tag in repo.tags:
            return error(409, "Tag exists")
        repo.tags[tag] = repo.at(revision)[0]
        return {}

    def resolve_dataset(self, user: str, name: str, revision: str, path: str, request: Request):
        return self.file(self.repos["dataset", f"{user}/{name}"], revision, path, request)

    def resolve_model(self, user: str, name: str, revision: str, path: str, request: Request):
        return self.file(self.repos["model", f"{user}/{name}"], revision, path, request)

    def file(self, repo: Repo, revision: str, path: str, request: Request):
        commit, files = repo.at(revision)
        if repo.gated:
            return error(403, "Access to this model is restricted.", {"X-Error-Code": "GatedRepo"})
        if path not in files:
            return error(404, "Entry not found", {"X-Error-Code": "EntryNotFound"})
        data = files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_id(data)}"', "Content-Length": str(len(data))}
        headers["Accept-Ranges"] = "bytes"
        if request.method == "GET" and "range" in request.headers:
            repo.ranges += 1
            return part(data, request.headers["range"], headers)
        whole = request.method == "GET"
        repo.downloads += whole and path.endswith(".safetensors")
        if whole and repo.paused:
            return StreamingResponse(halves(repo, data), headers=headers)
        return Response(data if request.method == "GET" else b"", headers=headers)


def name_route(path: str) -> str:
    return next((name for name in ROUTES if f"/{name}" in path), "info")


def part(data: bytes, asked: str, headers: dict[str, str]) -> Response:
    """The answer to "bytes=10-19" or "bytes=10-"."""
    first, _, last = asked.removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last or len(data)), len(data) - 1)
    if start >= len(data):
        return Response(b"", 416, {"Content-Range": f"bytes */{len(data)}"})
    found = data[start : end + 1]
    told = {"Content-Range": f"bytes {start}-{end}/{len(data)}", "Content-Length": str(len(found))}
    return Response(found, 206, {**headers, **told})


async def halves(repo: Repo, data: bytes):
    yield data[: len(data) // 2]
    while repo.paused:
        await asyncio.sleep(0.05)
    yield data[len(data) // 2 :]


def folders(files: dict[str, bytes], inside: str) -> list[dict]:
    found = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {".", inside}
    above = {str(parent) for parent in PurePosixPath(inside).parents}
    return [{"type": "directory", "path": path, "size": 0, "oid": "d" * 40} for path in sorted(found - above)]


def changed(files: dict[str, bytes], lines: list[dict]) -> dict[str, bytes]:
    files = dict(files)
    for line in lines:
        if line["key"] == "deletedFile":
            del files[line["value"]["path"]]
        else:
            files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
    return files


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status, {"X-Error-Message": message, **(headers or {})})
