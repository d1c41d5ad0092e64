"""What computes a result: it is recorded, and with portable numerics another machine computes the same bytes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from finetrail import environment, layout, numerics, params
from finetrail.errors import UserError
from stages import train

RECIPE = Path("recipes/token_classification/toy.yaml")


def change(path: Path, **values: Any) -> None:
    """Set top-level keys of a YAML file, or KEY of a section by SECTION__KEY."""
    yaml = YAML()
    content = yaml.load(path)
    for name, value in values.items():
        section, _, key = name.partition("__")
        if key:
            content[section][key] = value
        else:
            content[section] = value
    yaml.dump(content, path)


# --- the record ---------------------------------------------------------------------------------------------------


def test_the_record_says_what_bytes_depend_on() -> None:
    found = numerics.record("fast")
    assert list(found) == ["numerics", "device", "cpu", "instructions", "threads", "torch", "transformers"]
    assert (found["device"], found["threads"]) == ("cpu", torch.get_num_threads())
    assert found["torch"] == torch.__version__.split("+")[0]
    assert found["cpu"]


def test_a_gpu_is_recorded_with_its_name_cuda_and_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(numerics, "_driver", lambda: "580.95.05")
    found = numerics.record("fast")
    expected = {"device": "cuda", "device_name": "NVIDIA H200", "cuda": "13.0", "driver": "580.95.05"}
    assert found.items() >= expected.items()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU that has TF32; put back how fp32 is multiplied."""
    before = torch.backends.cuda.matmul.fp32_precision
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    yield
    torch.backends.cuda.matmul.fp32_precision = before


@pytest.mark.usefixtures("gpu")
def test_tf32_is_used_and_recorded_only_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    numerics.use("fast", None)  # all that train asks for
    numerics.use_tf32("portable")
    assert torch.backends.cuda.matmul.fp32_precision != "tf32"
    assert "tf32" not in numerics.record("fast")
    numerics.use_tf32("fast")
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    assert numerics.record("fast")["tf32"] is True


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("lacking", ["is_available", "is_tf32_supported"])
def test_without_such_a_gpu_fp32_stays_what_it_is(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, lacking, lambda: False)
    numerics.use_tf32("fast")
    assert torch.backends.cuda.matmul.fp32_precision != "tf32"


@pytest.mark.parametrize(
    ("cap", "amx", "bf16", "expected"),
    [
        (None, True, True, "amx_bf16"),
        ("ALL", True, True, "amx_bf16"),
        ("AVX512_CORE_AMX", True, True, "amx_bf16"),
        ("AVX512_CORE_BF16", True, True, "avx512_bf16"),
        ("AVX10_1_512", True, True, "avx512_bf16"),
        (None, False, True, "avx512_bf16"),
        ("AVX512_CORE", True, True, "avx512"),
        ("AVX2", True, True, "avx512"),
        (None, False, False, "avx512"),
    ],
)
def test_instructions_are_those_that_are_there_and_allowed(
    cap: str | None, amx: bool, bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if cap:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert numerics.instructions() == expected
    assert numerics.multiplies_bf16() == (expected != "avx512")


# --- settings -----------------------------------------------------------------------------------------------------


def test_threads_are_set_before_torch_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.os, "environ", {"OMP_NUM_THREADS": "7"})
    environment.set_environment("fast", None)
    assert os.environ == {"OMP_NUM_THREADS": "7"}
    environment.set_environment("fast", 3)
    assert os.environ == dict.fromkeys(environment.THREADS, "3")


def test_portable_overrules_what_the_machine_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        environment.os, "environ", {"OMP_NUM_THREADS": "7", "OMP_THREAD_LIMIT": "1", "NPY_ENABLE_CPU_FEATURES": "AVX2"}
    )
    environment.set_environment("portable", 16)
    assert os.environ == environment.PORTABLE


@pytest.mark.parametrize("key", ["precision", "execution"])
def test_portable_refuses_what_depends_on_the_cpu(key: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    value = {"precision": "bf16", "execution": "compile"}[key]
    change(RECIPE, numerics="portable", **{f"train__{key}": value})
    with pytest.raises(UserError, match=rf"{RECIPE}: numerics is portable, .*train.{key}:? .*; expected"):
        params.validate()


def test_portable_needs_avx2_which_is_said_by_make_check(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(environment.platform, "machine", lambda: "aarch64")
    params.validate()
    change(RECIPE, numerics="portable", train__precision="auto")
    with pytest.raises(
        UserError, match=rf"{RECIPE}: .* this aarch64 is not; expected fast: dvc exp run -S '{RECIPE}:num"
    ):
        params.validate()


def test_portable_is_refused_once_libraries_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match="portable: the environment was not set before torch was imported; expected one"
    ):
        numerics.use("portable", None)
    for name, value in environment.PORTABLE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(numerics, "threadpool_info", lambda: [{"internal_api": "mkl"}])
    with pytest.raises(UserError, match="numpy has no OpenBLAS that uses its kernels for Haswell"):
        numerics.use("portable", None)
    monkeypatch.setattr(numerics, "threadpool_info", lambda: [{"architecture": "Haswell"}])
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    with pytest.raises(UserError, match="torch finds an accelerator other than CUDA"):
        numerics.use("portable", None)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="several processes sum in another order"):
        numerics.use("portable", None)


def test_threads_are_those_of_the_settings() -> None:
    before = torch.get_num_threads()
    try:
        numerics.use("fast", 3)
        assert (torch.get_num_threads(), numerics.record("fast")["threads"]) == (3, 3)
        numerics.use("fast", None)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_checkpoint_is_of_one_machine(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    threads = torch.get_num_threads()
    declared = params.load("train")
    before = train.scratch(declared)
    assert train.scratch(declared) == before
    try:
        torch.set_num_threads(threads + 1)
        assert train.scratch(declared) != before
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(numerics, "instructions", lambda: "amx_bf16")
    assert train.scratch(declared) != before


# --- other machines -----------------------------------------------------------------------------------------------

# What the environment of a machine may say, and which cores it may have. benchmarks.portable emulates other CPUs.
MACHINES: dict[str, tuple[dict[str, str], str | None]] = {
    "this one": ({}, None),
    "one core, one thread": ({"OMP_NUM_THREADS": "1", "OMP_DYNAMIC": "true"}, "0"),
    "other kernels": (
        {"OMP_NUM_THREADS": "5", "ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "Prescott"}
        | {"ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "AVX2"},
        None,
    ),
}
COMPUTED = ("data/trained/model.safetensors", "data/trained/training.json", "data/predictions.parquet",
            "metrics/evaluation/metrics.json", "metrics/train/metrics.json")  # fmt: skip


def compute(folder: Path, machine: str) -> dict[str, bytes]:
    """Train and evaluate on an emulated machine, and return what came out."""
    env, core = MACHINES[machine]
    for stage in ("train", "evaluate"):
        command = [sys.executable, "-m", f"stages.{stage}"]
        pinned = ["taskset", "--cpu-list", core, *command] if core else command
        done = subprocess.run(pinned, cwd=folder, env=os.environ | env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return {name: (folder / name).read_bytes() for name in COMPUTED}


@pytest.mark.slow  # nine processes
@pytest.mark.skipif(not torch.cpu._is_avx2_supported(), reason="portable numerics need AVX2")
def test_portable_bytes_do_not_depend_on_cores_and_threads(
    make_project: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = make_project(tmp_path)
    change(folder / RECIPE, numerics="portable", train__precision="auto")
    products = folder / "finetrail/patches/products.py"  # the toy's products are too small to be shared among threads
    products.write_text(products.read_text().replace("FLOPS = 2**21", "FLOPS = 1"))
    for stage in ("download_corpus", "download_model", "tokenize"):
        subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=folder, capture_output=True, check=True)
    found = {machine: compute(folder, machine) for machine in MACHINES}
    for machine, files in found.items():
        for name, content in files.items():
            assert content == found["this one"][name], f"{name} differs with {machine}"
    record = json.loads(found["this one"][str(layout.TRAINING_RECORD)])
    assert record["precision"] == "fp32"
    assert record["machine"].items() >= {"numerics": "portable", "instructions": "avx2", "threads": 2}.items()
