"""Reads hardware files: the shipped ones, then the user's, whose entries extend or override them key by key."""

from __future__ import annotations

import re
import tomllib
from dataclasses import MISSING, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from herdlm.base.errors import InputError
from herdlm.plan.hardware.parts import Gpu, Level, Link, Machine, Measured, Network

SHIPPED = ("gpus.toml", "systems.toml")
TABLES = ("gpus", "links", "networks", "systems")
SYSTEM_KEYS = ("gpus_per_node", "link", "network", "sharp")
NOISE = re.compile(r"[^a-z0-9]+")

Tables = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Catalog:
    """All hardware that is known by name."""

    tables: Tables

    def gpu_names(self) -> list[str]:
        """Names of the GPUs."""
        return sorted(self.tables["gpus"])

    def machine(self, gpu: str, system: str | None = None) -> Machine:
        """The machine of a GPU, in its default system or in another one.

        Raises:
            InputError: a name is unknown.
        """
        entry = self.tables["gpus"][self.find_gpu(gpu)]
        name = system or str(entry["system"])
        if name not in self.tables["systems"]:
            known = ", ".join(sorted(self.tables["systems"]))
            raise InputError(f"the system {name!r} is unknown", f"Known are {known}; a hardware file may add others")
        found = self.tables["systems"][name]
        link = dict(self.tables["links"][found["link"]])
        link["sharp"] = found.get("sharp", link.get("sharp", False))
        network = dict(self.tables["networks"][found["network"]])
        network["levels"] = tuple(Level(**level) for level in network["levels"])
        measured = entry.get("measured")
        return Machine(
            Gpu(
                self.find_gpu(gpu),
                **{
                    **entry,
                    "names": tuple(entry.get("names", ())),
                    "measured": Measured(**measured) if measured else None,
                },
            ),
            int(found["gpus_per_node"]),
            Link(str(found["link"]), **link),
            Network(str(found["network"]), **network),
        )

    def find_gpu(self, name: str) -> str:
        """The GPU that a table means by ``name``: the longest known spelling that its words begin with.

        Raises:
            InputError: none does.
        """
        wanted = words_of(name)
        best: tuple[int, str] | None = None
        for key, entry in self.tables["gpus"].items():
            for spelling in (key, *entry.get("names", ())):
                words = words_of(spelling)
                if set(words) <= set(wanted) and (best is None or len(words) > best[0]):
                    best = (len(words), key)
        if best is None:
            raise InputError(
                f"the GPU {name!r} is unknown",
                f"Known are {', '.join(self.gpu_names())}; a hardware file may add others",
            )
        return best[1]


def words_of(name: str) -> list[str]:
    """The words of a GPU's name, without the maker's."""
    words = [word for word in NOISE.split(name.lower().replace(" gb", "gb").replace("gib", "gb")) if word]
    return [word for word in words if word not in ("nvidia", "tensor", "core", "gpu")]


def read_hardware(*paths: Path) -> Catalog:
    """The shipped hardware with the user's files on top, later files over earlier ones.

    Raises:
        InputError: a file is not TOML, or has an unknown, missing or wrong entry.
    """
    tables: Tables = {name: {} for name in TABLES}
    for name in SHIPPED:
        _merge(tables, tomllib.loads((files("herdlm.plan.hardware") / name).read_text("utf-8")), name)
    for path in paths:
        try:
            text = path.read_text("utf-8")
            _merge(tables, tomllib.loads(text), str(path))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"{path} is no hardware file: {error}", "Give a TOML file") from error
    for key in tables["gpus"]:
        _check(tables, key)
    return Catalog(tables)


def _merge(tables: Tables, found: dict[str, Any], path: str) -> None:
    for table, entries in found.items():
        if table not in TABLES or not isinstance(entries, dict):
            raise InputError(f"{path}: [{table}] is no table of a hardware file", f"Its tables are {', '.join(TABLES)}")
        for name, entry in entries.items():
            if not isinstance(entry, dict):
                raise InputError(f"{path}: {table}.{name} is not a table", f"Write [{table}.{name}]")
            _check_keys(table, name, entry, path)
            base = entry.pop("like", None)
            if base is not None and base not in tables[table]:
                raise InputError(f"{path}: {table}.{name} is like {base!r}, which is unknown", "Name an earlier entry")
            inherited = {k: v for k, v in tables[table][base].items() if k != "names"} if base else {}
            tables[table][name] = {**inherited, **tables[table].get(name, {}), **entry}


def _check_keys(table: str, name: str, entry: dict[str, Any], path: str) -> None:
    allowed = SYSTEM_KEYS if table == "systems" else [f.name for f in fields(_type(table)) if f.name != "name"]
    for key, value in entry.items():
        if key not in (*allowed, "like"):
            raise InputError(f"{path}: {table}.{name}.{key} is unknown", f"Its keys are {', '.join(allowed)}, like")
        free = key in (
            "latency_us",
            "architecture",
            "dollars_per_hour",
            "sharp",
            "measured",
            "levels",
            "names",
            "watts",
        )
        if not free and isinstance(value, int | float) and not value > 0:
            raise InputError(f"{path}: {table}.{name}.{key} is {value}", "Give a positive number")
        rates = {f.name for f in fields(Measured)}
        if key == "measured" and not (isinstance(value, dict) and value.keys() <= rates):
            raise InputError(f"{path}: {table}.{name}.measured has unknown keys", f"Its keys are {', '.join(rates)}")


def _type(table: str) -> type[Gpu] | type[Link] | type[Network]:
    return {"gpus": Gpu, "links": Link, "networks": Network}[table]


def _check(tables: Tables, gpu: str) -> None:
    entry = tables["gpus"][gpu]
    needed = [f.name for f in fields(Gpu) if f.default is MISSING and f.name != "name"]
    if missing := [name for name in needed if name not in entry]:
        raise InputError(f"gpus.{gpu} has no {', '.join(missing)}", "Add it, or `like` with the name of another GPU")
    system = tables["systems"].get(entry["system"])
    if system is None or any(key not in system for key in SYSTEM_KEYS[:3]):
        raise InputError(f"gpus.{gpu}.system {entry['system']!r} is missing or incomplete", "Add it under [systems]")
    for key, table in (("link", "links"), ("network", "networks")):
        if system[key] not in tables[table]:
            raise InputError(f"systems.{entry['system']}.{key} {system[key]!r} is unknown", f"Add it under [{table}]")
