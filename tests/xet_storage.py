"""The storage of large files that the Hub calls Xet, as far as a client that sends needs it, after its specification
(https://huggingface.co/docs/xet/index). Files come as chunks, packed in xorbs; a shard says which chunks make a file.

`files` has the content of each by its SHA-256. An upload that does not fit together is refused.
"""

import hashlib
import struct
from collections.abc import Iterator

import lz4.frame
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

ENTRY = 48  # bytes of each part of a shard
END = b"\xff" * 32
VERIFIED, WITH_DIGEST = 1 << 31, 1 << 30  # flags of a file
TOKEN = "xet_good"


class XetStorage:
    def __init__(self):
        self.xorbs: dict[str, list[bytes]] = {}
        self.files: dict[str, bytes] = {}

    def add_routes(self, routes: FastAPI) -> None:
        token = "/api/{kind}s/{user}/{name}/xet-write-token/{revision}"
        routes.add_api_route(token, self.give_token, methods=["GET"])
        routes.add_api_route("/xet/v1/xorbs/default/{name}", self.take_xorb, methods=["POST"])
        routes.add_api_route("/xet/v1/shards", self.take_shard, methods=["POST"])
        routes.add_api_route("/xet/v1/chunks/default-merkledb/{name}", self.find_chunk, methods=["GET"])

    def give_token(self, request: Request):
        told = {"casUrl": f"{request.base_url}xet", "accessToken": TOKEN, "exp": 4102444800}
        names = {"X-Xet-Cas-Url": "casUrl", "X-Xet-Access-Token": "accessToken", "X-Xet-Token-Expiration": "exp"}
        return JSONResponse(told, headers={header: str(told[name]) for header, name in names.items()})

    def find_chunk(self):
        return Response(status_code=404)

    async def take_xorb(self, name: str, request: Request):
        new = name not in self.xorbs
        self.xorbs[name] = list(read_chunks(await request.body()))
        return {"was_inserted": new}

    async def take_shard(self, request: Request):
        for digest, terms in read_files(await request.body()):
            content = b"".join(chunk for xorb, first, last in terms for chunk in self.xorbs[xorb][first:last])
            if hashlib.sha256(content).hexdigest() != digest:
                return JSONResponse({"error": "A file does not match its digest"}, 400)
            self.files[digest] = content
        return {"result": 1}


def read_chunks(xorb: bytes) -> Iterator[bytes]:
    """The chunks before the footer, which the sender may leave out."""
    place = 0
    while place + 8 <= len(xorb) and xorb[place] == 0:
        packed, kind = int.from_bytes(xorb[place + 1 : place + 4], "little"), xorb[place + 4]
        size = int.from_bytes(xorb[place + 5 : place + 8], "little")
        body = xorb[place + 8 : place + 8 + packed]
        yield unpack(body, kind, size)
        place += 8 + packed


def unpack(body: bytes, kind: int, size: int) -> bytes:
    data = body if kind == 0 else lz4.frame.decompress(body)
    if kind == 2:  # first all first bytes of four, then all second ones, …
        ends = [0]
        for place in range(4):
            ends.append(ends[-1] + len(range(place, size, 4)))
        whole = bytearray(size)
        for place in range(4):
            whole[place::4] = data[ends[place] : ends[place + 1]]
        data = bytes(whole)
    assert len(data) == size
    return data


def read_files(shard: bytes) -> Iterator[tuple[str, list[tuple[str, int, int]]]]:
    """Of each file: its SHA-256, and its terms as xorb, first chunk and the one after the last."""
    place = ENTRY
    while shard[place : place + 32] != END:
        flags, count = struct.unpack_from("<II", shard, place + 32)
        starts = range(place + ENTRY, place + ENTRY * (1 + count), ENTRY)
        terms = [(name_hash(shard[at : at + 32]), *struct.unpack_from("<II", shard, at + 40)) for at in starts]
        place += ENTRY * (1 + count * (2 if flags & VERIFIED else 1))
        assert flags & WITH_DIGEST, "the Hub's repositories need the digest of each file"
        yield name_hash(shard[place : place + 32]), terms
        place += ENTRY


def name_hash(raw: bytes) -> str:
    """As hashes are written: four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))
