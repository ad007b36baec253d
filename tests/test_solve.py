"""`solve`: directories of results, stops and resumption, comparisons, and the command line before it."""

import json
import os
import signal

import numpy as np
import pytest

from fastsiren import cli, faults
from fastsiren.fit import Options
from fastsiren.images import Picture
from fastsiren.problems.experiment import solve
from fastsiren.problems.image_experiment import ImageExperiment
from stopped_runs import stop_in_step

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"steps": 40, "hidden": 12, "layers": 1, "omega": 8.0, "lr": 0.02, "batch": 50}
QUIET = Options(progress=False)


def picture(shift=0.0):
    rows, columns = np.mgrid[0:1:12j, 0:1:10j]
    waves = 0.5 + 0.5 * np.sin(3 * rows + 4 * columns + shift)
    return Picture((waves[..., None] * 255).astype(np.uint8))


def run(out=None, **options):
    return solve(ImageExperiment, picture(), out=out, options=QUIET, **{**SMALL, **options})


def test_a_directory_holds_everything(tmp_path):
    solution = run(tmp_path / "a" / "b")
    found = sorted(os.listdir(tmp_path / "a" / "b"))
    assert found == ["pictures.png", "psnr.png", "result.json", "sine.jsonl", "sine.safetensors", "ssim.png"]
    result = json.loads((tmp_path / "a" / "b" / "result.json").read_text())
    assert result["experiment"] == "image" and result["settings"]["hidden"] == 12
    assert result["networks"]["sine"]["figures"] == solution.figures
    steps = [step for step, _ in solution.trained["sine"].curve]
    assert steps == sorted(steps) and steps[-1] == 40


def test_without_a_directory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run().figures["PSNR"] > 10
    assert not os.listdir(tmp_path)


def test_results_are_replaced_only_when_asked(tmp_path):
    run(tmp_path)
    before = (tmp_path / "sine.safetensors").read_bytes()
    with pytest.raises(faults.OutputError, match=r"--resume.*--overwrite"):
        run(tmp_path)
    assert (tmp_path / "sine.safetensors").read_bytes() == before
    run(tmp_path, overwrite=True, seed=1)
    assert (tmp_path / "sine.safetensors").read_bytes() != before


def test_a_stopped_comparison_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    """The stop comes in the second network; the first is not trained again."""
    whole = run(tmp_path / "whole", compare=True)
    with stop_in_step(monkeypatch, 60):
        stopped = run(tmp_path / "part", compare=True)
    assert stopped.exit_code == 130 and list(stopped.trained) == ["sine", "relu"]
    assert stopped.trained["relu"].steps == 20
    assert not (tmp_path / "part" / "result.json").exists()
    rest = solve(ImageExperiment, picture(), out=tmp_path / "part", resume=True, compare=True, options=QUIET)
    assert rest.exit_code == 0 and rest.trained["sine"].seconds < 1
    assert list(rest.trained) == list(whole.trained) == ["sine", "relu", "relu_pe", "tanh", "rbf"]
    for label in whole.trained:
        name = f"{label}.safetensors"
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(("number", "leaves"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_while_results_are_written_ends_the_work(number, leaves, tmp_path, monkeypatch):
    def leave(number, frame):
        raise SystemExit

    before = signal.signal(signal.SIGTERM, leave)
    try:
        with monkeypatch.context() as patch, pytest.raises(leaves):
            patch.setattr(ImageExperiment, "write", lambda self, solution, home: os.kill(os.getpid(), number))
            run(tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert sorted(os.listdir(tmp_path)) == ["sine.jsonl", "sine.safetensors"]
    assert run(tmp_path, resume=True).exit_code == 0 and (tmp_path / "result.json").exists()


def test_resume_refuses_other_data_and_another_shape(tmp_path):
    run(tmp_path)
    with pytest.raises(faults.InputError, match="another picture"):
        solve(ImageExperiment, picture(1.0), out=tmp_path, resume=True, options=QUIET)
    with pytest.raises(faults.UsageError, match="--hidden 9 does not fit"):
        solve(ImageExperiment, picture(), out=tmp_path, resume=True, options=QUIET, hidden=9)


def test_quick_settings_are_defaults_only():
    quick = ImageExperiment.quick
    chosen = solve(ImageExperiment, picture(), quick=True, options=QUIET, steps=1).experiment.settings
    assert chosen.steps == 1 and chosen.hidden == quick.hidden


def test_data_that_a_result_would_replace_are_refused(tmp_path):
    (tmp_path / "pictures.png").write_bytes(b"precious")
    with pytest.raises(faults.UsageError, match="where results go"):
        solve(ImageExperiment, tmp_path / "pictures.png", out=tmp_path, overwrite=True, options=QUIET)
    assert (tmp_path / "pictures.png").read_bytes() == b"precious"


def command(*words):
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as exit:
        return exit.code


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["solve", "nothing"], 2, "no experiment is called 'nothing'"),
        (["solve"], 2, "required"),
        (["solve", "image", "--steps", "0"], 2, "--steps must be a whole number of 1 or more; got 0"),
        (["solve", "image", "--seed", str(2**63)], 2, f"--seed must be at most 2**63 - 1; got {2**63}"),
        (["solve", "image", "--hidden", str(10**20)], 2, f"--hidden must be at most 2**63 - 1; got {10**20}"),
        (["solve", "image", "--steps", "many"], 2, "--steps"),
        (["solve", "image", "--threads", "0"], 2, "argument --threads: must be a whole number of 1 or more; got '0'"),
        (["solve", "image", "--save-every", "nan"], 2, "argument --save-every: must be a number; got 'nan'"),
        (["solve", "image", "--target", "inf"], 2, "argument --target: must be a number; got 'inf'"),
        (["solve", "image", "no_such.png"], 3, "no such file"),
        (["solve", "image", "--resume", "--overwrite"], 2, "exclude each other"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_wrong_commands_are_one_line(words, code, said, capsys, tmp_path):
    assert command(*words, *(["-o", tmp_path / "out"] if len(words) > 2 else [])) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("fastsiren: error: ") and said in lines[0]
    assert not (tmp_path / "out").exists()


def test_the_list_names_every_experiment(capsys):
    from fastsiren.problems import EXPERIMENTS

    assert command("solve", "--list") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(EXPERIMENTS)


def test_the_command_runs_and_reports(tmp_path, capsys):
    words = [f"--{name}={value}" for name, value in {**SMALL, "steps": 3}.items()]
    from fastsiren.problems.data import photograph

    assert command("solve", "image", photograph("camera.png"), "-o", tmp_path / "a", *words, "--threads", 1) == 0
    assert "PSNR" in capsys.readouterr().out and (tmp_path / "a" / "result.json").exists()
