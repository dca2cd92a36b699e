"""Where a model comes from, for the report's page on origins."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import urlsplit

from herdlm.base.artifact import Manifest
from herdlm.base.lineage import Origin, walk
from herdlm.report.data import Lineage, Node
from herdlm.report.read import Records

SOURCE = "source file"
# Of several inputs, the one that the artifact continues: a model before tokens, tokens before documents.
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
        DamagedError: an ancestor is gone, or was made again after an artifact was made from it.
    """
    nodes: dict[str, Node] = {}

    def add(origin: Origin) -> str:
        """Add an origin's ancestors, then itself; returns its name."""
        if origin.manifest is None:
            name = source_name(origin.path)
            if name in records or (name in nodes and nodes[name].content != origin.content):
                name = f"{name} ({origin.content[:8]})"  # same name, another folder
            nodes.setdefault(name, Node(name, SOURCE, origin.content, ()))
            return name
        name = origin.stage or origin.path
        if name not in nodes:
            first = _promoted(origin.manifest)
            origins = sorted(origin.origins, key=lambda each: each.path != first)
            made_from = tuple(dict.fromkeys(add(each) for each in origins))
            nodes[name] = Node(name, origin.manifest.kind, origin.content, made_from)
        return name

    add(walk(final, lambda name: records[name].manifest if name in records else None))
    return Lineage(final, _main_line(nodes, final), tuple(nodes.values()))


def _promoted(manifest: Manifest) -> str | None:
    """Of a gate's inputs, the path of the model that it passed on; of an average, that of its trained part."""
    if "promoted" not in manifest.counts:
        return None
    chosen = manifest.counts["promoted"]
    roles = ["incumbent"] if chosen is None else [f"candidate-{chosen}", "candidate-dpo"]
    return next((manifest.inputs[role].path for role in roles if role in manifest.inputs), None)


def _main_line(nodes: dict[str, Node], final: str) -> tuple[str, ...]:
    line = [final]
    while parents := nodes[line[-1]].made_from:
        order = {kind: rank for rank, kind in enumerate(_CONTINUES)}
        line.append(min(parents, key=lambda name: order.get(nodes[name].kind, len(order))))
    return tuple(reversed(line))
