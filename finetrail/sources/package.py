"""An installed Python package -> its data files, found through pip's record, without importing it."""

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

from finetrail import schema
from finetrail.errors import UserError
from finetrail.sources.provenance import Fetched, record, some


def fetch(source: schema.PackageSource) -> Fetched:
    """Find a file or a folder of the installed package; UserError if it or its version is not there."""
    dist = _installed(source)
    wanted = PurePosixPath(source.path)
    # pip records the bytecode that it compiles: it differs from one Python to the next.
    recorded = [PurePosixPath(file) for file in dist.files or [] if "__pycache__" not in file.parts]
    found = [file for file in recorded if file == wanted or wanted in file.parents]
    if not found:
        there = some([str(file) for file in recorded if ".dist-info" not in file.parts[0]])
        raise UserError(f"package {source.package} {source.version} has no {source.path}; its files: {there}")
    top = wanted.parent if wanted in found else wanted
    root = Path(str(dist.locate_file(top)))
    files = [str(file.relative_to(top)) for file in found]
    for name in files:
        if not (root / name).is_file():
            raise UserError(f"package {source.package}: {name} is missing; expected by pip's record: reinstall it")
    return record(source, root, files, pinned=source.sha256, license=license_of(dist))


def _installed(source: schema.PackageSource) -> Distribution:
    command = f"pip install {source.package}=={source.version}"
    try:
        dist = distribution(source.package)
    except PackageNotFoundError:
        raise UserError(f"package {source.package} is not installed; expected {source.version}: {command}") from None
    if dist.version != source.version:
        raise UserError(f"package {source.package} is {dist.version}; expected {source.version}: {command}")
    return dist


def license_of(dist: Distribution) -> str | None:
    """Return the licence that METADATA states in a word; some packages put the whole text there."""
    for key in ("License-Expression", "License"):
        value = (dist.metadata.get_all(key) or [""])[0]
        if value and value != "UNKNOWN" and "\n" not in value and len(value) <= 80:
            return value
    classifiers = dist.metadata.get_all("Classifier") or []
    licenses = [name.split(" :: ")[-1] for name in classifiers if name.startswith("License :: ")]
    return ", ".join(licenses) or None
