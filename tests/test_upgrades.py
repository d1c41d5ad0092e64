"""Files of earlier versions of the schema: what they get, that all else stays, and that no new key is forgotten."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from finetrail import params, tasks, upgrade, upgrades
from finetrail.errors import UserError
from finetrail.upgrades import Change

ROOT = Path(__file__).parent.parent
OLD = ROOT / "tests/upgrades"  # COMMIT/TASK/NAME.yaml, as that commit of this repository had it in recipes/
DEFAULTS = ROOT / "recipes/token_classification/defaults.yaml"
OLD_FILES = sorted(OLD.rglob("*.yaml"))


def schemas() -> Any:
    spec = importlib.util.spec_from_file_location("schemas", ROOT / "docs/schemas.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = schemas()
SINCE: dict[str, dict[str, int]] = SCRIPT.read_keys()
ADDED = {added: version.number for version in upgrades.VERSIONS for added in version.added}


# --- the table and the schema -------------------------------------------------------------------------------------


def forgotten(since: dict[str, int]) -> list[str]:
    """Return the keys that came into a section which was there before."""
    found = []
    for place, version in since.items():
        section = next(
            at for at in (f"{place[:end]}." for end in range(len(place) - 1, -1, -1)) if at in since or at == "."
        )
        if not place.endswith(".") and version > since[section]:
            found.append(place)
    return found


def key(place: str) -> str:
    """Return a place without the names of forms, as the table has it."""
    return re.sub(r"\(\w+\)", "", place)


def test_no_key_is_forgotten() -> None:
    of_now = SCRIPT.since(SCRIPT.schemas())
    new = {
        f"{name}: {place}" for name, since in of_now.items() for place in forgotten(since) if key(place) not in ADDED
    }
    assert not new, f"{sorted(new)}: add them to a new Version in finetrail/upgrades.py, then run `make docs`"
    assert SCRIPT.KEYS.read_text(encoding="utf-8") == SCRIPT.keys_text(of_now), "run `make docs`"


def test_keys_that_earlier_files_lack_are_found() -> None:
    first = {".": 1, "train": 1, "train.": 1, "train.lr": 1, "model": 1, "model.": 1, "model.name": 1}
    # A new form of a section, or a section of a new key, is nothing that earlier files have.
    lora = {"train.lora.": 3, "train.lora.rank": 3, "model(Student).": 3, "model(Student).layers": 3}
    assert forgotten(first | lora) == []
    assert forgotten(first | lora | {"train.lora": 3, "top": 4}) == ["train.lora", "top"]
    later = {"train.lora.keep": 6, "model(Student).heads": 7, "reader(csv).": 4, "reader(csv).quote": 5}
    assert forgotten(first | lora | later) == ["train.lora.keep", "model(Student).heads", "reader(csv).quote"]
    assert key("corpus.reader(csv).quote") == "corpus.reader.quote"


def test_the_table_is_in_order_and_speaks_of_keys_that_there_are() -> None:
    assert [version.number for version in upgrades.VERSIONS] == list(range(2, upgrades.VERSION + 1))
    assert sum(len(version.added) for version in upgrades.VERSIONS) == len(ADDED)
    there = {key(place) for since in SINCE.values() for place in since}
    brought = {
        (key(place), version) for since in SINCE.values() for place in forgotten(since) for version in [since[place]]
    }
    wrong = {f"{added}: {number}" for added, number in ADDED.items() if (added, number) not in brought}
    assert not wrong, f"docs/keys.json says otherwise of {sorted(wrong)}: take them out there, and run `make docs`"
    assert max(version for _, version in brought) <= upgrades.VERSION
    for renamed in upgrades.RENAMED:
        assert renamed.to in there
        assert renamed.to == renamed.key or renamed.key not in there, "an earlier name must not come back"


# --- files of earlier commits -------------------------------------------------------------------------------------


def stays(old: str, new: str, changes: list[Change]) -> bool:
    """Tell whether the lines of a file are there in their order, and between them one for each key that was added."""
    renamed = [change for change in changes if change.old is not None]
    for change in renamed:
        before, after = (f"{change.old}: {upgrade._scalar(change.old_value)}"), f"{change.place[-1]}: {change.value}"
        assert old.count(before) == 1
        old = old.replace(before, after)
    rest = iter(new.splitlines())
    return all(line in rest for line in old.splitlines()) and len(new.splitlines()) == (
        len(old.splitlines()) + len(changes) - len(renamed)
    )


@pytest.mark.parametrize("path", OLD_FILES, ids=lambda path: str(path.relative_to(OLD)))
def test_a_file_of_an_earlier_commit_becomes_valid(path: Path) -> None:
    with pytest.raises(UserError) as error:
        if path.name == "params.yaml":
            params.checked(upgrade.model_of(path, {}), params.read_yaml(path), path)
        else:
            params.checked_recipe(params.read_yaml(path), path, path.parent.name, defaults={})
    assert str(error.value).endswith(f"; {upgrades.HINT}")
    planned = upgrade.planned(path)  # validates what it returns
    assert planned.changes and stays(planned.old, planned.new, planned.changes)


def test_old_files_are_of_all_tasks() -> None:
    assert {path.parent.name for path in OLD_FILES} >= set(tasks.names())


def test_what_was_before_is_what_it_gets() -> None:
    first = upgrade.planned(OLD / "0925955/token_classification/wnut16.yaml").changes
    assert {change.place: change.value for change in first}[("numerics",)] == "fast"
    assert {change.place[-1] for change in first} >= {
        *("numerics", "stratify", "group", "engine", "num_proc", "layer_decay", "unfreeze_layers", "checkpoint_every"),
        *("gradient_checkpointing", "execution", "lora", "label_smoothing", "class_weights"),
    }
    generation = upgrade.planned(OLD / "9d82fd6/text_generation/bring-your-own-prompts.yaml").changes
    assert Change(("tokenize", "remainder"), "pad", "remainder", "keep") in generation
    compiled = upgrade.planned(OLD / "eed7b78/text_classification/bbc-news.yaml").changes
    assert compiled[0] == Change(("train", "execution"), "eager", "torch_compile", False)


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_every_recipe_of_the_history_becomes_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        pytest.skip("the clone is shallow")
    monkeypatch.chdir(ROOT)
    seen: dict[str, tuple[Path, str | None]] = {}  # a file's content -> its name, and the defaults that it had
    for commit in git("log", "--full-history", "--format=%H", "--", "recipes", "params.yaml").split():
        lines = git("ls-tree", "-r", commit, "--", "recipes", "params.yaml").splitlines()
        blobs = {Path(line.partition("\t")[2]): line.partition("\t")[0].split()[2] for line in lines}
        for name, blob in blobs.items():
            if name.suffix == ".yaml":
                seen.setdefault(blob, (name, blobs.get(name.with_name("defaults.yaml"))))
    assert len(seen) > 200
    refused = {}
    for blob, (name, defaults) in seen.items():
        file = tmp_path / blob / name
        file.parent.mkdir(parents=True)
        if defaults:
            (file.parent / "defaults.yaml").write_text(git("cat-file", "blob", defaults), encoding="utf-8")
            if file.stem != "defaults":  # as the command does it: the defaults first, for the recipe beside them
                file.write_text(git("cat-file", "blob", blob), encoding="utf-8")
                (file.parent / "defaults.yaml").write_text(upgrade.planned(file.parent / "defaults.yaml").new)
        file.write_text(git("cat-file", "blob", blob), encoding="utf-8")
        try:
            upgraded = upgrade.planned(file).new
            if file.stem not in ("params", "defaults"):  # as this project runs it
                params.checked_recipe(YAML(typ="safe", pure=True).load(upgraded), file, name.parent.name)
        except UserError as error:
            refused[f"{blob[:9]} {name}"] = str(error)
    assert refused == {}


# --- the text -----------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Any] = {
    "properties": {
        "first": {},
        "train": {"properties": {"engine": {}, "lr": {}, "lora": {}, "execution": {}}},
        "last": {},
    }
}
LORA, ENGINE = Change(("train", "lora"), None), Change(("train", "engine"), "trainer")
EXECUTION = Change(("train", "execution"), "eager", "torch_compile", False)


@pytest.mark.parametrize(
    ("old", "changes", "new"),
    [
        (  # behind the key before it, with its comment; before the comment of the next
            "train:\n  lr: 3e-4  # high\n  # of the old name\n  torch_compile: false # no\n",
            [LORA, EXECUTION],
            "train:\n  lr: 3e-4  # high\n  lora:\n  # of the old name\n  execution: eager # no\n",
        ),
        (  # the first of its section, and below what the file begins with
            "# mine\n\ntrain:\n    # peak\n    lr: 1\n",
            [Change(("first",), "fast"), ENGINE],
            "# mine\n\nfirst: fast\ntrain:\n    # peak\n    engine: trainer\n    lr: 1\n",
        ),
        (  # behind a section, its comments included, where the file ends without a line end
            "train:\n  lr: 1\n  # none yet\n# end",
            [Change(("last",), True)],
            "train:\n  lr: 1\n  # none yet\nlast: true\n# end",
        ),
        ("train:\n  lr: 1", [LORA, Change(("last",), 2)], "train:\n  lr: 1\n  lora:\nlast: 2"),
        ("train: {lr: [1, 2], b: 'x'}\n", [ENGINE, LORA], "train: {engine: trainer, lr: [1, 2], lora: null, b: 'x'}\n"),
        ("train:\r\n  lr:\r\n", [ENGINE, LORA], "train:\r\n  engine: trainer\r\n  lr:\r\n  lora:\r\n"),
        ("train:\n  lr: |\n    a\n    b\n\n", [LORA], "train:\n  lr: |\n    a\n    b\n  lora:\n\n"),
        (
            "train:\n  lr:\n  - 1\n  - a: b\n    c:\nlast: 1\n",
            [LORA],
            "train:\n  lr:\n  - 1\n  - a: b\n    c:\n  lora:\nlast: 1\n",
        ),
        ("last: &x\n  - 1\ntrain:\n  lr: *x\n", [LORA], "last: &x\n  - 1\ntrain:\n  lr: *x\n  lora:\n"),
        ("train:\n  'lr': \"1 # 2\"\n", [LORA], "train:\n  'lr': \"1 # 2\"\n  lora:\n"),
    ],
)
def test_all_else_stays(old: str, changes: list[Change], new: str) -> None:
    assert upgrade.edit(old, changes, SECTIONS) == new


def test_a_part_of_a_mixture_is_a_corpus() -> None:
    path = ROOT / "recipes/text_classification/bbc-and-tweets.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.count("        group:\n") == 2
    content = params.read_yaml(path)
    for part in content["corpus"]["parts"].values():
        del part["splits"]["group"]
    new, changes = upgrade.upgraded_recipe(content, path, upgrade.defaults_beside(path))
    without = text.replace("        group:\n", "")
    assert {change.place[:3] for change in changes} == {
        ("corpus", "parts", name) for name in content["corpus"]["parts"]
    }
    assert upgrade.edit(without, changes, upgrade.json_schema(path)) == text


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with params.yaml and one recipe of the first version, and with the defaults of now."""
    recipe = tmp_path / "recipes/token_classification/mine.yaml"
    recipe.parent.mkdir(parents=True)
    for of, file in ((recipe, "token_classification/wnut16.yaml"), (tmp_path / "params.yaml", "params.yaml")):
        of.write_bytes((OLD / "0925955" / file).read_bytes())
    (recipe.parent / "defaults.yaml").write_bytes(DEFAULTS.read_bytes())
    monkeypatch.chdir(tmp_path)
    return recipe


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["upgrade", *arguments])
    upgrade.main()


def test_the_command(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    project.chmod(0o640)
    before = project.read_bytes()
    run(monkeypatch, "--diff")
    shown = capsys.readouterr()
    assert project.read_bytes() == before and "2 would be changed, 1 of version" in shown.err
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "apply", "--check", "-"], input=shown.out, text=True, check=True)
    run(monkeypatch)
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "params.yaml: added trackers: null, threads: null"
    assert told[1].startswith(
        "recipes/token_classification/mine.yaml: added numerics: fast, corpus.splits.stratify: null"
    )
    assert project.stat().st_mode & 0o777 == 0o640 and len(list(project.parent.iterdir())) == 2
    params.load_params(), params.load_recipe("token_classification", "mine")
    run(monkeypatch, "token_classification/mine", "params.yaml")
    assert capsys.readouterr().err == f"0 changed, 3 of version {upgrades.VERSION} already\n"


def test_the_defaults_get_a_new_key_and_not_each_recipe(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = project.with_name("defaults.yaml")
    lora = "lora:\n    rank: 8\n    alpha: 16.0\n    dropout: 0.0\n    target_modules:\n    keep: false\n"
    beside.write_text(beside.read_text().replace("lora:\n", lora).replace("  label_smoothing: 0.0\n", ""))
    run(monkeypatch)
    told = capsys.readouterr().err.splitlines()
    assert (
        "recipes/token_classification/defaults.yaml: added train.lora.quantize: null, train.label_smoothing: 0.0"
        in told
    )
    assert "label_smoothing" not in project.read_text()
    assert params.load_recipe("token_classification", "mine").train.lora is None  # as before there were adapters


def test_an_old_recipe_keeps_what_it_did_before_defaults(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch)
    train = params.load_recipe("token_classification", "mine").train
    assert (train.execution, train.checkpoint_every) == ("eager", None)
    assert params.read_yaml(project.with_name("defaults.yaml"))["train"]["execution"] == "auto"
    short = project.with_name("short.yaml")
    shutil.copy(ROOT / "recipes/token_classification/wnut16.yaml", short)
    assert not upgrade.planned(short).changes and params.load_recipe("token_classification", "short")


def test_a_recipe_gets_what_an_empty_section_of_defaults_lacks(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = project.with_name("defaults.yaml")
    beside.write_text(re.sub(r"(?ms)^train:\n.*?^evaluate:", "train:\n\nevaluate:", beside.read_text()))
    run(monkeypatch)
    assert params.load_recipe("token_classification", "mine").train.speedups is True


def test_an_earlier_record_gets_directions_and_settings() -> None:
    old = {"task": "x", "train": {"lr": 1.0}, "test": {"perplexity": 3.0, "accuracy": 1.0}}
    new = upgrades.record(old)
    assert new["lower_is_better"] == ["perplexity"] and new["train"]["speedups"] is True and new["train"]["lr"] == 1.0
    assert old["train"] == {"lr": 1.0} and upgrades.record(new) == new
    for foreign in ({"test": 0.5}, [1], "text", None):
        with pytest.raises(ValueError, match="expected an object"):
            upgrades.record(foreign)  # type: ignore[arg-type]


def test_a_link_stays_one(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared = project.rename(tmp_path / "shared.yaml")
    project.symlink_to(shared)
    run(monkeypatch)
    assert project.is_symlink() and "numerics: fast" in shared.read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "train:\n",
            "train:\n  torch_compile: 7\n",
            "train.torch_compile is 7; expected one of false, true, which train.",
        ),
        (
            "train:\n",
            "train:\n  torch_compile: true\n  execution: auto\n",
            "train.torch_compile is what train.execution ",
        ),
        ("train:\n", "train:\n  momentum: 1\n", "train.momentum: unknown key"),
        ("  lr: ", "  lr: &x ", None),
        ("train:\n", "train:\n  <<: {engine: trainer}\n", None),
        ("evaluate:\n", "more: &t {num_proc: 1}\nevaluate:\n", "more: unknown key"),
        ("max_length: 128", "max_length: 0", "tokenize.max_length: "),
    ],
)
def test_what_cannot_be_upgraded_is_told_and_stays(
    project: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str | None
) -> None:
    text = project.read_text()
    assert old in text
    project.write_text(text.replace(old, new, 1))
    before = project.read_bytes()
    if message is None:
        run(monkeypatch)
        params.load_recipe("token_classification", "mine")
        return
    with pytest.raises(UserError) as error:
        run(monkeypatch)
    assert str(error.value).startswith("1 left as they are: recipes/token_classification/mine.yaml: ")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert project.read_bytes() == before
    params.load_params()  # the other file is upgraded


def test_a_merged_section_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = project.read_text()
    body = text[text.index("corpus:\n") :].partition("\n\n")[0]
    project.write_text(text.replace(body, f"<<:\n  {body.replace(chr(10), chr(10) + '  ')}"))
    with pytest.raises(
        UserError, match=r"anchors or merged sections stand in the way; expected added .*stratify: null"
    ):
        run(monkeypatch)


def test_a_file_that_is_none_of_these_is_told(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "dvc.yaml"
    other.write_text("stages: {}\n")
    with pytest.raises(UserError, match=r"dvc.yaml: expected params.yaml, or a recipe in a folder named masked_lm, "):
        run(monkeypatch, str(other))


def test_every_exported_task_is_kept_of_several_versions() -> None:
    found = {(path.parents[1].name, path.parent.name) for path in OLD.rglob("finetrail.json")}
    assert {task for _, task in found} == set(tasks.names()) and len({commit for commit, _ in found}) >= 3
    assert all(upgrades.SCHEMA_VERSION not in json.loads(path.read_text()) for path in OLD.rglob("finetrail.json"))
