"""mypy refuses a task whose modules do not do what tasks/contract.py says."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# File of a task, what is there, what a careless edit makes of it, and what mypy says of it.
EDITS = [
    ("masked_lm/encoding.py", "def encode_table(", "def encode_rows(", "TableEncoder"),
    ("question_answering/modeling.py", "SEPARABLE = True", "SEPARATE = True", "SEPARABLE"),
    ("retrieval/modeling.py", "def num_items(", "def count(", "num_items"),
    ("text_classification/scoring.py", "def beside(", "def besides(", "beside"),
    ("text_generation/card.py", "def usage(model: str, ", "def usage(", "usage"),
    ("token_classification/corpus.py", "def summary(counts: Counts, settings: Corpus)", "def summary()", "summary"),
]


@pytest.mark.slow
def test_mypy_names_each_member_that_a_task_lacks_or_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = pytest.importorskip("mypy.api")
    for name in ("finetrail", "stages", ".mypy_cache"):  # the last saves a minute, if mypy has run
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, found, edited, _ in EDITS:
        path = tmp_path / "finetrail/tasks" / name
        text = path.read_text(encoding="utf-8")
        assert found in text
        path.write_text(text.replace(found, edited, 1), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    said, _, status = api.run([])
    assert status == 1
    lines = [line for line in said.splitlines() if line.startswith("finetrail/tasks/conformance.py")]
    for _, _, _, member in EDITS:
        assert any(member in line for line in lines), member
