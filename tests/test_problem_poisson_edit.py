"""Seamless cloning: the direct solution against scipy's, the loss as written in the book, what lies outside, inputs."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastsiren import faults
from fastsiren.fit import Options
from fastsiren.images import Picture
from fastsiren.problems import cosines, poisson_edit
from fastsiren.problems.plain_networks import PlainSiren
from fastsiren.problems.poisson_edit import PoissonEdit, Settings, cloned

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"steps": 20, "hidden": 12, "layers": 1, "batch": 60}
QUIET = Options(progress=False)


def picture(height, width, channels=3, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, channels))
    return Picture(noise.astype(np.uint8))


def problem(**options):
    target, source = options.pop("target", picture(30, 40)), options.pop("source", picture(14, 10, seed=1))
    return PoissonEdit(Settings(**{**SMALL, "row": 0.5, "column": 0.5, **options}), target, source)


@pytest.mark.parametrize("mix", [False, True])
def test_the_direct_solution_is_that_of_scipy(mix):
    """Least squares over all pairs of neighbours, one row of a sparse matrix each."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import spsolve

    torch.manual_seed(0)
    target, source = torch.rand(2, 7, 6, 1, dtype=torch.float64)
    mask = torch.zeros(7, 6, dtype=torch.float64)
    mask[2:5, 1:5] = torch.rand(3, 4) + 0.1
    where, rows, wanted = torch.arange(42).view(7, 6), [], []
    for i, j in [(i, j) for i in range(7) for j in range(6)]:
        for down, right in ((1, 0), (0, 1)):
            k, l = i + down, j + right
            if k < 7 and l < 6:
                theirs, ours = target[k, l] - target[i, j], source[k, l] - source[i, j]
                ours = max(theirs, ours, key=abs) if mix else ours
                share = (mask[i, j] + mask[k, l]) / 2
                rows.append((int(where[i, j]), int(where[k, l])))
                wanted.append(float((1 - share) * theirs + share * ours))
    entries = [(n, at, sign) for n, pair in enumerate(rows) for at, sign in zip(pair, (-1, 1))]
    number, at, sign = zip(*entries)
    pairs = csr_matrix((sign, (number, at)), (len(rows), 42))
    free, known = (mask.flatten() > 0).numpy(), target.flatten().numpy()
    rest = np.array(wanted) - pairs[:, ~free] @ known[~free]
    expected = known.copy()
    expected[free] = spsolve((pairs[:, free].T @ pairs[:, free]).tocsc(), pairs[:, free].T @ rest)
    np.testing.assert_allclose(cloned(target, source, mask, mix=mix).flatten(), expected, atol=1e-8)


@pytest.mark.parametrize("plain", [False, True])
def test_the_loss_is_its_formula(plain):
    given = problem(contrast=0.5, anchor=3.0, batch=10_000)
    net, step = given.network(), given.grid.step[0]
    x = given.grid.coordinates().flatten(0, 1).requires_grad_()
    y = PlainSiren(net)(x)
    found = torch.stack([torch.autograd.grad(y[:, o].sum(), x, retain_graph=True)[0] for o in range(3)], 1)
    m = given.inside.flatten()[:, None, None]
    theirs = cosines.gradient(given.before, step).flatten(0, 1)
    ours = given.slopes.flatten(0, 1) / step
    wanted = 0.5 * ((1 - m) * theirs + m * ours)
    outside = given.inside.flatten() == 0
    values = (y / 0.5 - given.before.flatten(0, 1))[outside]
    expected = (found - wanted).square().sum(-1).mean() / wanted.square().mean() + 3 * values.square().mean()
    loss = sum(given.loss(PlainSiren(net) if plain else net, 0))
    torch.testing.assert_close(loss, expected.float(), rtol=1e-4, atol=0)


def test_the_source_lies_where_it_is_put():
    """Also where the border of the target cuts it off."""
    middle, corner = problem(), problem(row=0.0, column=1.0)
    assert [(s.start, s.stop) for s in middle.region] == [(0, 30), (7, 33)]
    assert torch.equal(middle.pasted[8:22, 8:18], middle.source)
    assert [(s.start, s.stop) for s in corner.region] == [(0, 15), (27, 40)]
    assert torch.equal(corner.pasted[:7, -5:], corner.source[7:, :5])
    assert torch.equal(corner.slopes[:7, -5:], cosines.gradient(corner.source, 1.0)[7:, :5])


def test_mixed_gradients_are_the_stronger():
    guidance = problem(mix=True)._guidance()
    theirs = cosines.gradient(problem().before, problem().grid.step[0])
    assert (guidance.norm(dim=-1) >= theirs.norm(dim=-1) - 1e-9)[problem().inside == 1].all()
    assert torch.equal(guidance[problem().inside == 0], theirs[problem().inside == 0])


def test_outside_the_mask_nothing_changes(tmp_path):
    solution = poisson_edit.fit(picture(30, 40), picture(14, 10, seed=1), out=tmp_path, options=QUIET, **SMALL)
    given = solution.experiment
    changed = (given.edited(solution.net) != given.target).any(-1)
    assert int(changed.sum()) == int((given.inside > 0).sum())
    names = {path.name for path in tmp_path.iterdir()}
    assert {"pictures.png", "edited.png", "psnr.png", "seam.png"} < names
    with Image.open(tmp_path / "edited.png") as edited:
        assert edited.size == (40, 30) and edited.mode == "RGB"
    with pytest.raises(faults.InputError, match="another set of pictures"):
        poisson_edit.fit(picture(30, 40), picture(14, 10), out=tmp_path, resume=True, options=QUIET)


def test_figures_are_against_the_direct_solution():
    given = problem(contrast=1.0)
    net = given.network()
    with torch.no_grad():
        net.net[-1].weight.zero_()
        net.net[-1].bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    inside = given.reference.clamp(-1, 1)[given.inside > 0]
    mse = ((inside - torch.tensor([0.1, 0.2, 0.3])) / 2).square().mean()
    assert given.measure(net)["PSNR"] == pytest.approx(-10 * float(mse.log10()), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "fault", "said"),
    [
        ({"row": 5.0}, faults.UsageError, "--row 5 --column 0.5: the mask lies outside the target"),
        ({"target": picture(4, 4), "source": picture(60, 60)}, faults.UsageError, "covers the whole target"),
    ],
)
def test_wrong_places_are_refused(options, fault, said):
    with pytest.raises(fault, match=said):
        problem(**options)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(faults.InputError, match=r"mask: it has 3x9 pixels, the source 10x14"):
        PoissonEdit(Settings(**SMALL), picture(30, 40), picture(14, 10), picture(9, 3, 1))


def test_grey_and_colour_go_together():
    given = problem(target=picture(30, 40, 1))
    assert given.features == (2, 3)
