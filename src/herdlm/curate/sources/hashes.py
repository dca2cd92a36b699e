"""Content hashes of sources, cached while a file stays the same."""

from __future__ import annotations

import json
from pathlib import Path

from herdlm.base.artifact import hash_bytes, hash_file, hash_json, write_text_durably
from herdlm.base.errors import InputError
from herdlm.base.json_files import read_object
from herdlm.curate.config import CurateConfig

MEMORY = ".source-hashes.json"


def source_content(source: str, config: CurateConfig, root: Path) -> str:
    """Return the content hash of a path, glob or URL: of the file's bytes, or of all its files' hashes in order.

    A remote file is identified by what its store reports (size, entity tag, time of change), without reading it.

    Raises:
        InputError: The source is missing or empty, or its kind of address needs a package that is not installed.
    """
    from herdlm.curate.sources.find import find_sources
    from herdlm.curate.sources.source_code import tree

    memory = root / MEMORY
    known = _remembered(memory)
    remembered = len(known)
    hashes = []
    for file in find_sources([source], config):
        # A folder of source code is identified by all its files.
        members = [file.path]
        if file.format == "code":
            names = [name for name, _ in tree(file)]
            hashes.append(hash_bytes("\n".join(names).encode()))  # names determine the languages
            members = [f"{file.path}/{name}" for name in names]
        for path in members:
            local = Path(path)
            if not local.is_file():
                hashes.append(hash_bytes(f"{path} {file.identity}".encode()))
                continue
            status = local.stat()
            key = f"{local}|{status.st_size}|{status.st_mtime_ns}"
            if key not in known:
                known[key] = hash_file(local)
            hashes.append(known[key])
    if len(known) > remembered:
        write_text_durably(memory, json.dumps({"seal": hash_json(known), "hashes": known}, indent=1) + "\n")
    return hashes[0] if len(hashes) == 1 else hash_bytes("".join(hashes).encode())


def _remembered(memory: Path) -> dict[str, str]:
    """The hashes of earlier runs; none if the file is damaged: then all are computed anew."""
    try:
        stored = read_object(memory, "")
    except InputError:
        return {}
    known = stored.get("hashes")
    if not isinstance(known, dict) or stored.get("seal") != hash_json(known):
        return {}
    return known
