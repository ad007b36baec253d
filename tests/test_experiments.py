"""Every experiment with its quick settings reaches the bound that it states, and shows something."""

import pytest

from fastsiren.fit import Options
from fastsiren.problems import EXPERIMENTS, find
from fastsiren.problems.experiment import solve


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_quick_settings_reach_the_bound(name, tmp_path):
    kind = find(name)
    assert kind.name == name
    solution = solve(kind, out=tmp_path, quick=True, options=Options(progress=False))
    assert solution.experiment.better(solution.figures[kind.merit], kind.bound), solution.report()
    assert {path.suffix for path in tmp_path.iterdir()} > {".json", ".jsonl", ".safetensors"}
