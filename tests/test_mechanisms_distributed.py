"""DistributedDataParallel and fully_shard in two processes: the gradients of one process with all points."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fastsiren
from conftest import WANTED
from mechanisms import on

TESTS = Path(__file__).resolve().parent
ROOT = Path(fastsiren.__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict[str, dict[str, Any]]:
    """What happened to each case in tests/distributed.py."""
    out = tmp_path_factory.mktemp("distributed") / "cases.json"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(TESTS / "distributed.py"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(out.read_text())
    return found


def assert_synchronised(case: dict[str, Any]) -> None:
    assert case.get("norm"), case
    assert case["error"] <= 1e-12 * case["norm"]


def assert_raised(case: dict[str, Any], error: str, message: str) -> None:
    assert case.get("raised") == error and message in case["message"], case


@on("value", "jets", "losses")
def test_distributeddataparallel(quantity, cases):
    assert_synchronised(cases[f"ddp {quantity}"])
    variant = {"value": "value static", "jets": "jets static", "losses": "losses views"}[quantity]
    assert_synchronised(cases[f"ddp {variant}"])


@on("value", "losses")
def test_distributeddataparallel_and_autograd_grad(quantity, cases):
    """A loss of derivatives alone: the last bias has no part in it, and plain torch then stops averaging."""
    for case in {"value": ["nested", "nested unused"], "losses": ["with value"]}[quantity]:
        assert_synchronised(cases[f"ddp {case}"])


@on("value")
def test_distributeddataparallel_static_graph_and_autograd_grad_raises(quantity, cases):
    assert_raised(cases["ddp nested static"], "RuntimeError", "averages at the first backward")


@on("jets", "losses")
def test_distributeddataparallel_given_to_a_function_raises(quantity, cases):
    assert_raised(cases[f"ddp {quantity} outside"], "TypeError", "of a wrapper, ask in its call")


@on("value", "jets", "losses")
def test_fully_shard(quantity, cases):
    assert_synchronised(cases[f"fsdp {quantity}"])


@on("value")
def test_fully_shard_and_autograd_grad_raises(quantity, cases):
    # In plain torch, where there is no C++ engine, it is torch that says so.
    said = "memory was given back" if "cpp" in WANTED else "storage of size 0"
    assert_raised(cases["fsdp nested"], "RuntimeError", said)


@on("jets", "losses")
def test_fully_shard_given_to_a_function_raises(quantity, cases):
    assert_raised(cases[f"fsdp {quantity} outside"], "RuntimeError", "sharded parameters")


@on("value")
def test_fully_shard_of_single_layers_raises(quantity, cases):
    assert_raised(cases["fsdp layers"], "RuntimeError", "net.0: has hooks")
