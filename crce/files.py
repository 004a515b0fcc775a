"""Files that are written completely or not at all, and where the user's own ones live."""

import json
import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """The folder for runs, drafts and caches: CRCE_HOME, or the platform's data folder."""
    if chosen := os.environ.get("CRCE_HOME"):
        return Path(chosen)
    import platformdirs  # a GPU machine that only trains need not have it

    return Path(platformdirs.user_data_dir("crce-studio"))


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes beside the file, flushes to the disk, then renames: a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))
