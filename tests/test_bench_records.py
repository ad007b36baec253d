"""The benchmark's rows: the file that keeps them, the table that shows them, the bars that they must reach."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from fastsiren.bench import gates, records, report
from fastsiren.bench.__main__ import main


def synthetic(**changes: object) -> records.Row:
    """A row of a made-up run; changes overwrite columns."""
    row = records.Row(
        *("abc", "2030-01-01T00:00Z", "a processor", "avx512", 2, "3.12", "2.13", "0.1", "default"),
        *("forward", 256, 3, 65_536, 2, 1, "ours", 9),
        *(80.0, 79.0, 81.0, 1.0, 1.0, 95.0, 1e-6, 1.1e-6, 12.0),
    )
    return replace(row, **changes)


def passing(isa: str) -> list[records.Row]:
    """One row per bar, each exactly on it."""
    place, rows = gates.ISAS.index(isa), []
    for bar in gates.BARS:
        shape = {"workload": bar.workload, "points": bar.points, "d": bar.d, "peer": bar.peer, "width": bar.width}
        rows.append(synthetic(isa=isa, **shape, **{bar.column: bar.least[place]}))
    return rows


def test_rows_survive_the_file_and_other_columns_are_refused(tmp_path):
    path = tmp_path / "new" / "cpu.csv"
    rows = [synthetic(), synthetic(peer="eager", peak_mb=None, error_ours=math.nan)]
    records.append(path, rows[:1])
    records.append(path, rows[1:])
    lines = path.read_text().splitlines()
    assert lines[0] == ",".join(records.COLUMNS) and len(lines) == 3
    back = records.read(path)
    assert back[0] == rows[0]
    assert math.isnan(back[1].error_ours) and replace(back[1], error_ours=0.0) == replace(rows[1], error_ours=0.0)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="expected are commit"):
        records.append(path, rows)
    with pytest.raises(ValueError, match="expected are commit"):
        records.read(path)


def test_the_last_row_of_a_key_counts_and_machines_are_not_mixed():
    rows = [synthetic(median_ms=1.0), synthetic(isa="amx"), synthetic(threads=1), synthetic(median_ms=2.0)]
    assert [r.median_ms for r in records.latest(rows)] == [2.0]
    assert [r.isa for r in records.latest(rows, isa="amx")] == ["amx"]
    assert records.latest(rows, commit="other") == []


@pytest.mark.parametrize("isa", gates.ISAS)
def test_rows_on_the_bars_pass_and_a_row_below_or_missing_fails(isa):
    rows = passing(isa)
    assert all(outcome.passed for outcome in gates.check(rows, isa))
    assert len(gates.BARS) == 13 + 4 + 8 + 3 + 2
    for place, bar in enumerate(gates.BARS):
        for value in (0.999 * getattr(rows[place], bar.column), math.nan):
            worse = [*rows[:place], replace(rows[place], **{bar.column: value}), *rows[place + 1 :]]
            assert [o.bar for o in gates.check(worse, isa) if not o.passed] == [bar]
        missed = [o for o in gates.check(rows[:place] + rows[place + 1 :], isa) if not o.passed]
        assert [o.bar for o in missed] == [bar] and "no row" in gates.describe(missed[0])


def test_the_bars_of_the_release_table():
    least = {(b.workload, b.points, b.d, b.peer): b.least for b in gates.BARS}
    assert least["forward", 262_144, 2, "compile"] == (2.0, 6.0)
    assert least["laplacian", 65_536, 3, "eager"] == (10.0, 22.0)
    assert least["train_laplacian", 65_536, 2, "compile_jet"] == (1.7, 4.0)
    assert least["train_laplacian_unfused", 65_536, 2, "eager"] == pytest.approx((3.85, 8.4))
    assert least["train_value_import_only", 65_536, 2, "eager"] == (2.5, 2.5)
    assert least["train_laplacian_import_only", 65_536, 2, "eager"] == (5.0, 5.0)
    assert least["train_laplacian_diff_operators", 65_536, 2, "eager"] == (5.0, 5.0)
    assert least["forward", 65_536, 2, "ours"] == (85.0, 250.0)
    assert least["laplacian", 65_536, 3, "ours"] == (85.0, 220.0)
    assert least["train_eikonal", 65_536, 3, "ours"] == (80.0, 220.0)
    assert least["train_256_networks", 4_096, 2, "eager"] == (8.0, 8.0)
    assert least["train_256_networks", 4_096, 2, "vmap"] == (2.0, 2.0)


def test_gates_ignore_other_threads_and_tuned_malloc():
    rows = [replace(row, threads=1) for row in passing("amx")]
    assert not any(outcome.passed for outcome in gates.check(rows, "amx"))
    rows = [replace(row, malloc="tuned") for row in passing("amx")]
    assert not any(outcome.passed for outcome in gates.check(rows, "amx"))


def test_the_gates_command_exits_with_one_on_a_miss_and_two_without_bars(tmp_path, capsys):
    rows = passing("avx512")
    records.append(tmp_path / "cpu.csv", rows)
    assert main(["gates", "--out", str(tmp_path)]) == 0
    records.append(tmp_path / "cpu.csv", [replace(rows[0], ratio_median=3.0)])
    assert main(["gates", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "MISS  forward d=2 n=65,536 vs eager" in printed and "3.00x" in printed
    assert main(["gates", "--out", str(tmp_path), "--factor", "0.7"]) == 0
    assert main(["gates", "--out", str(tmp_path), "--commit", "other"]) == 2
    records.append(tmp_path / "cpu.csv", [synthetic(isa="reference")])
    assert main(["gates", "--out", str(tmp_path)]) == 2
    assert main(["gates", "--out", str(tmp_path / "nowhere")]) == 2


def test_the_report_shows_ratios_of_both_mallocs_and_the_strongest_compiled_peer(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    shape = {"workload": "laplacian"}
    rows = [
        synthetic(**shape, median_ms=123.4, percent_of_mm=96.4, peak_mb=40.4),
        synthetic(**shape, peer="eager", ratio_median=10.04, peak_mb=4300.0),
        synthetic(**shape, peer="chunks", ratio_median=4.0),
        synthetic(**shape, peer="compile_jet", ratio_median=1.94),
        synthetic(**shape, peer="torch_jet", ratio_median=3.0),
        synthetic(**shape, malloc="tuned"),
        synthetic(**shape, peer="eager", malloc="tuned", ratio_median=6.0),
        synthetic(workload="train_value_unfused", width=64, points=1_024),
    ]
    records.append(tmp_path / "cpu.csv", rows)
    assert main(["report", "--out", str(tmp_path), "--plot", str(tmp_path / "plots" / "cpu.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == (
        "| value + gradient + Laplacian, d=2, 3x256, 65,536 points "
        "| 10.0x | 6.0x | 4.0x | 1.9x (compile_jet) | 123.4 | 96 | 40 / 4,300 |"
    )
    assert lines[3] == "" and "a processor, avx512, 2 threads" in lines[4]
    assert (tmp_path / "plots" / "cpu.png").read_bytes().startswith(b"\x89PNG")
    assert "training step, value loss written in PyTorch" in report.markdown(rows, sweep=True)
    with pytest.raises(ValueError, match="no rows of ours"):
        report.markdown(rows[-1:])


def test_rows_of_drop_in_classes_are_a_table_of_their_own():
    rows = [synthetic(workload=f"train_laplacian{suffix}") for suffix in records.SUFFIXES.values()]
    assert [row.variant for row in rows] == list(records.SUFFIXES) and {row.kind for row in rows} == {"train_laplacian"}
    release, dropin = (report.markdown(rows, sweep=True, dropin=flag).splitlines()[2:4] for flag in (False, True))
    assert [line.split(",")[1][:9] for line in release] == [" Laplacia"] * 2
    assert "imported" not in "".join(release)
    assert "loss, class imported from dropin, d=2" in dropin[0]
    assert "loss, class and derivative functions imported, d=2" in dropin[1]
