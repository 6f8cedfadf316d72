"""Checks that what is built to be published has what it should, and nothing else.

    check_package.py WHEEL SDIST WHEEL_FROM_SDIST

Prints what is wrong, and exits with 1 if there is anything.
"""

from __future__ import annotations

import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from project_urls import urls_of

ROOT = Path(__file__).resolve().parents[1]
#: What hatchling adds to an sdist.
_ADDED = {"PKG-INFO", ".gitignore"}


def files_of(root: Path, *names: str) -> set[str]:
    """Return the files in these folders of ``root``, and those that are named themselves, by their
    paths in ``root``; none that git is to ignore."""
    lines = (root / ".gitignore").read_text("utf-8").split()
    ignored = [line.rstrip("/") for line in lines]
    paths = [path for name in names for path in (root / name, *(root / name).rglob("*"))]
    found = {path.relative_to(root) for path in paths if path.is_file()}
    return {
        path.as_posix()
        for path in found
        if not any(fnmatch(part, pattern) for part in path.parts for pattern in ignored)
    }


def recorded(wheel: Path) -> dict[str, bytes]:
    """Read the files of a wheel; without its own list of them, whose order is nobody's business."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/RECORD")]
        return {name: archive.read(name) for name in names}


def problems_of_wheel(files: dict[str, bytes], project: dict[str, Any], root: Path) -> list[str]:
    """Return what is wrong with the files of a wheel of this project, whose sources are in
    ``root``."""
    folders = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    names = [PurePosixPath(folder).name for folder in folders]
    wanted = {
        f"{name}/{path.removeprefix(f'{folder}/')}"
        for name, folder in zip(names, folders, strict=True)
        for path in files_of(root, folder)
    }
    about = {name for name in files if PurePosixPath(name).parts[0].endswith(".dist-info")}
    found = [f"the wheel lacks {name}" for name in sorted(wanted - {*files})]
    found += [f"the wheel has {name}" for name in sorted({*files} - wanted - about)]
    found += [f"{name} has no py.typed" for name in names if f"{name}/py.typed" not in files]
    by_name = {name.partition("/")[2]: files[name] for name in about}
    for name in ("METADATA", "entry_points.txt", "licenses/LICENSE"):
        if name not in by_name:
            found.append(f"the wheel lacks {name}")
    if "METADATA" in by_name:
        found += _problems_of_metadata(
            Parser().parsestr(by_name["METADATA"].decode()), project["project"]
        )
    return found


def _problems_of_metadata(metadata: Message, project: dict[str, Any]) -> list[str]:
    wanted = {
        "Name": [project["name"]],
        "License-Expression": [project["license"]],  # PEP 639
        "License-File": project["license-files"],
        "Requires-Python": [project["requires-python"]],
        "Description-Content-Type": ["text/markdown"],
        "Provides-Extra": sorted(project["optional-dependencies"]),
        "Project-URL": [f"{name}, {url}" for name, url in project["urls"].items()],
    }
    found = [
        f"METADATA has {key} {metadata.get_all(key, [])} and not {values}"
        for key, values in wanted.items()
        if sorted(metadata.get_all(key, [])) != sorted(values)
    ]
    if any("License ::" in line for line in metadata.get_all("Classifier", [])):
        found.append("METADATA has a licence classifier beside its License-Expression")
    return found


def problems_of_sdist(names: set[str], project: dict[str, Any], root: Path) -> list[str]:
    """Return what is wrong with the files of an sdist, by their paths in its folder."""
    included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    wanted = files_of(root, *(name.lstrip("/") for name in included))
    found = [f"the sdist lacks {name}" for name in sorted(wanted - names)]
    return [*found, *(f"the sdist has {x}" for x in sorted(names - wanted - _ADDED))]


def main(wheel: Path, sdist: Path, from_sdist: Path) -> list[str]:
    """Return what is wrong with the three."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project["project"]["urls"] = urls_of(ROOT)
    files, again = recorded(wheel), recorded(from_sdist)
    with tarfile.open(sdist) as archive:
        members = {member.name.partition("/")[2] for member in archive if member.isfile()}
    differ = sorted({*files} ^ {*again})
    differ += sorted(name for name in {*files} & {*again} if files[name] != again[name])
    return [
        *problems_of_wheel(files, project, ROOT),
        *problems_of_sdist(members, project, ROOT),
        *(f"{name} differs in the wheel that the sdist builds" for name in differ),
    ]


if __name__ == "__main__":
    wrong = main(*map(Path, sys.argv[1:]))
    print("\n".join(wrong) or "the wheel and the sdist have what they should")
    sys.exit(bool(wrong))
