"""The table of experiments: rows of a run, the check before timing, a failure that does not end the rest."""

import csv

import pytest
from fastsiren.bench import __main__ as bench
from fastsiren.bench import experiments

from fastsiren.problems import image, image_experiment
from fastsiren.problems.plain_networks import PlainSiren
from test_solve import SMALL, picture


@pytest.fixture
def small(monkeypatch):
    """The experiment "image" on a few pixels."""
    monkeypatch.setattr(image_experiment.ImageExperiment, "quick", image.Settings(**SMALL))
    monkeypatch.setattr(image_experiment, "_picture", lambda given: picture())
    return image_experiment.ImageExperiment


def test_columns_of_one_experiment(small, tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "SECONDS", 0.08)
    (row,) = experiments.measure("image", tmp_path, quick=True)
    assert (row["experiment"], row["network"], row["merit"], row["steps"]) == ("image", "sine", "PSNR", 40)
    assert row["ratio"] > 0 and row["step_ms"] > 0 and row["peak_mb"] > 1
    assert (tmp_path / "image" / "result.json").exists()
    made = dict.fromkeys(("sine", "tanh"), small(small.quick).siren)
    monkeypatch.setattr(small, "contenders", lambda self: made)
    ours, other = experiments.measure("image", tmp_path, quick=True, compare=True)
    assert (ours["network"], other["network"], other["backend"]) == ("sine", "tanh", "torch")


def test_steps_that_differ_are_not_timed(small, monkeypatch):
    other = small(image.Settings(**SMALL, seed=1)).siren()
    monkeypatch.setattr(small, "plain", lambda self, net: PlainSiren(other))
    with pytest.raises(ValueError, match="gradients apart by"):
        experiments.step_times(small(small.quick), 0.01)


def test_a_failing_experiment_is_reported_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments, "EXPERIMENTS", {"first": None, "second": None})
    assert experiments.run([], tmp_path / "keep", tmp_path, quick=True) == 1
    shown = capsys.readouterr().out
    assert "first: failed" in shown and "second: failed" in shown and "invalid choice" in shown
    assert not (tmp_path / "experiments.csv").exists()


def test_the_table_shows_the_last_row_of_each(tmp_path, capsys):
    header = [field.name for field in experiments.dataclasses.fields(experiments.ExperimentRow)]
    base = dict.fromkeys(header, "") | {"settings": "default", "network": "sine", "merit": "PSNR", "seconds": "61.2"}
    with open(tmp_path / "experiments.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        for figure in ("30", "36.5"):
            writer.writerow(base | {"experiment": "image", "figure": figure, "ratio": "4.2", "step_ms": "15"})
        writer.writerow(base | {"experiment": "wave", "figure": "0.03", "settings": "quick"})
    assert bench.main(["experiments", "--table", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert (
        "| image | sine | PSNR 36.5 |" in shown
        and "4.2x (15 ms)" in shown
        and "30" not in shown
        and "wave" not in shown
    )
