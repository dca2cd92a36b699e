"""Where a model comes from: a walk over manifests, each naming its inputs by content hash."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import urlsplit

from herdlm.base.artefact import InputEntry
from herdlm.base.errors import DamagedError
from herdlm.report.data import Lineage, Node
from herdlm.report.read import Records

SOURCE = "source file"
# Of several inputs, the one that the artefact continues: a model before tokens, tokens before documents.
_CONTINUES = ("model", "tokens", "documents", SOURCE)


def source_name(path: str) -> str:
    """A source without the folders of this machine or the credentials of an address."""
    if "://" not in path:
        return PurePosixPath(path).name or path
    address = urlsplit(path)
    host = address.netloc.rpartition("@")[2]
    return f"{address.scheme}://{host}{address.path}"


def lineage(records: Records, final: str) -> Lineage:
    """All ancestors of the stage ``final``, sources first.

    Raises:
        DamagedError: an input's content is not what the artefact made from it says.
    """
    nodes: dict[str, Node] = {}

    def visit(name: str) -> None:
        if name in nodes:
            return
        record = records[name]
        made_from = []
        for entry in record.manifest.inputs.values():
            stage = _stage_of(entry)
            if stage is None:
                source = source_name(entry.path)
                if source in nodes and nodes[source].content != entry.content:
                    source = f"{source} ({entry.content[:8]})"  # same name, another folder
                nodes.setdefault(source, Node(source, SOURCE, entry.content, ()))
                made_from.append(source)
                continue
            if stage not in records:
                raise DamagedError(
                    f"{record.folder} was made from {stage}, which the run lacks", "Run the recipe again"
                )
            if records[stage].manifest.content != entry.content:
                raise DamagedError(
                    f"{record.folder} was made from another {stage} than the run holds now", "Run the recipe again"
                )
            visit(stage)
            made_from.append(stage)
        manifest = record.manifest
        nodes[name] = Node(name, manifest.kind, manifest.content, tuple(dict.fromkeys(made_from)))

    visit(final)
    return Lineage(final, _main_line(nodes, final), tuple(nodes.values()))


def _stage_of(entry: InputEntry) -> str | None:
    parts = PurePosixPath(entry.path).parts
    return parts[1] if len(parts) == 2 and parts[0] == "stages" else None


def _main_line(nodes: dict[str, Node], final: str) -> tuple[str, ...]:
    line = [final]
    while parents := nodes[line[-1]].made_from:
        order = {kind: rank for rank, kind in enumerate(_CONTINUES)}
        line.append(min(parents, key=lambda name: order.get(nodes[name].kind, len(order))))
    return tuple(reversed(line))
