"""The dataset's description in Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec.html): its files
with their digests, and what stands in each column. Tools that read it need nothing of the Hub."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

VERSION = "http://mlcommons.org/croissant/1.0"
# The context that the format prescribes: what each word of a description means.
_WORDS = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format",
    "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{word: f"cr:{word}" for word in _WORDS},
}
CITATION = (
    "Xue et al., CRCE: Coreference-Retention Concept Erasure in Text-to-Image Diffusion Models, arXiv:2503.14232, 2025"
)
_TYPES = {"string": "sc:Text", "float64": "sc:Float", "int32": "sc:Integer"}


def describe(
    tables: Mapping[str, bytes], columns: Mapping[str, str | tuple[str, ...]], repo: str, about: str, licence: str
) -> bytes:
    """croissant.json for these Parquet files, by path in the repository. columns: their types; one with several names
    is a class label, whose numbers stand for them in order. licence: its address."""
    told = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": VERSION,
        "name": repo.rpartition("/")[2],
        "description": about,
        "license": licence,
        "citeAs": CITATION,
        "url": f"https://huggingface.co/datasets/{repo}",
        "distribution": [_describe_file(path, content) for path, content in tables.items()],
        "recordSet": [_describe_table(path, columns) for path in tables],
    }
    return (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode()


def _describe_file(path: str, content: bytes) -> dict[str, str]:
    return {
        "@type": "cr:FileObject", "@id": path, "name": path, "contentUrl": path,
        "encodingFormat": "application/x-parquet", "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip


def _describe_table(path: str, columns: Mapping[str, str | tuple[str, ...]]) -> dict[str, Any]:
    """Of data/object/train.parquet: the records "object/train"."""
    name = path.removeprefix("data/").removesuffix(".parquet")
    fields = [_describe_column(f"{name}/{column}", path, kind) for column, kind in columns.items()]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields}


def _describe_column(name: str, path: str, kind: str | tuple[str, ...]) -> dict[str, Any]:
    column = name.rpartition("/")[2]
    about = {} if isinstance(kind, str) else {"description": ", ".join(f"{n}: {k}" for n, k in enumerate(kind))}
    return {
        "@type": "cr:Field", "@id": name, "name": column, **about,
        "dataType": _TYPES[kind] if isinstance(kind, str) else "sc:Integer",
        "source": {"fileObject": {"@id": path}, "extract": {"column": column}},
    }  # fmt: skip
