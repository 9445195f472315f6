"""The assignment: optimal, blind to padding, and the same under jit, vmap and shard_map."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from dig_jax.reward import matching
from dig_jax.reward.matching import PAD_COST, assign, assign_on_host, assign_xla, price_padding

XLA_SLOW = ("scipy", pytest.param("xla", marks=pytest.mark.slow))  # where it is compiled anew
# One compilation each way: every test below brings its problems to the shape [16, 6, 5].
SOLVERS = {"scipy": assign, "xla": jax.jit(assign_xla)}
BATCH, Q, M = 16, 6, 5
TOLERANCE = 1e-4  # float32 beside PAD_COST = 128: ulp 1.5e-5, a handful of sums


@pytest.fixture
def calls(monkeypatch):
    """Shapes the host solver is called with. Trace after asking for this fixture."""
    shapes = []

    def counted(cost):
        shapes.append(np.shape(cost))
        return assign_on_host(cost)

    monkeypatch.setattr(matching, "assign_on_host", counted)
    return shapes


def total(cost, match):
    """Number of matched pairs and their summed cost: what an optimum is unique in."""
    rows = [(i, j) for i, j in enumerate(np.asarray(match)) if j >= 0]
    assert len({j for _, j in rows}) == len(rows), "a true box was matched twice"
    return len(rows), sum(float(cost[i, j]) for i, j in rows)


def brute_force(cost):
    """Least cost over all largest one-to-one assignments, by trying them all."""
    if cost.shape[0] > cost.shape[1]:
        cost = cost.T
    pairs = range(cost.shape[0])
    return min(
        sum(float(cost[i, j]) for i, j in zip(pairs, columns, strict=True))
        for columns in itertools.permutations(range(cost.shape[1]), cost.shape[0])
    )


def random_padded(rng):
    """Priced costs with random padding rows and columns (not only trailing ones)."""
    pred, true = rng.random((BATCH, Q)) < 0.7, rng.random((BATCH, M)) < 0.7
    cost = rng.random((BATCH, Q, M), np.float32)
    return np.asarray(price_padding(cost, pred, true)), pred, true


def solve_one(solver, cost):
    """Match one small problem, set into the corner of the common shape."""
    cost = np.asarray(cost, np.float32)
    q, m = cost.shape
    padded = np.full((BATCH, Q, M), PAD_COST, np.float32)
    padded[0, :q, :m] = cost
    match = np.asarray(SOLVERS[solver](padded))
    assert (match[1:] == -1).all()
    assert (match[0, q:] == -1).all()
    return match[0, :q]


def fsdp_mesh():
    return jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("q", "m"), list(itertools.product(range(1, 6), repeat=2)))
def test_equals_brute_force(solver, q, m):
    rng = np.random.default_rng(q * 10 + m)
    for cost in rng.random((4, q, m), np.float32):
        count, price = total(cost, solve_one(solver, cost))
        assert count == min(q, m)
        assert price == pytest.approx(brute_force(cost), abs=TOLERANCE)


@pytest.mark.parametrize(("q", "m"), [pytest.param(16, 8, marks=pytest.mark.slow), (8, 16)])
def test_scipy_equals_optax_called_directly(q, m):
    costs = np.random.default_rng(3).random((16, q, m), np.float32)
    rows, columns = jax.jit(jax.vmap(optax.assignment.hungarian_algorithm))(costs)
    for cost, i, j, match in zip(costs, rows, columns, assign(costs), strict=True):
        best = cost[np.asarray(i), np.asarray(j)].sum()
        assert total(cost, match) == (min(q, m), pytest.approx(best, abs=TOLERANCE))


@pytest.mark.parametrize("solver", SOLVERS)
def test_padding_is_never_matched_and_never_in_the_way(solver):
    """The matched pairs are those of the problem with the padding cut out."""
    rng = np.random.default_rng(5)
    for _ in range(4):
        costs, pred, true = random_padded(rng)
        matches = np.asarray(SOLVERS[solver](costs))
        for cost, p, t, match in zip(costs, pred, true, matches, strict=True):
            assert (match[~p] == -1).all()
            assert not np.isin(match, np.flatnonzero(~t)).any()
            inner = cost[np.ix_(p, t)]
            count, price = total(cost, match)
            assert count == min(inner.shape)
            assert count == 0 or price == pytest.approx(brute_force(inner), abs=TOLERANCE)


@pytest.mark.parametrize("solver", SOLVERS)
def test_largest_matching_wins_over_a_cheaper_smaller_one(solver):
    """Padding costs more than any rearrangement: two dear pairs beat one free pair."""
    cost = [[0.0, 1.0, PAD_COST], [1.0, PAD_COST, PAD_COST], [PAD_COST] * 3]
    assert solve_one(solver, cost).tolist() == [1, 0, -1]


@pytest.mark.parametrize("solver", SOLVERS)
def test_nothing_real_means_nothing_matched(solver):
    assert (np.asarray(SOLVERS[solver](np.full((BATCH, Q, M), PAD_COST))) == -1).all()
    assert SOLVERS[solver](jnp.zeros((2, 3, 0))).tolist() == [[-1] * 3] * 2
    assert SOLVERS[solver](jnp.zeros((2, 0, 3))).shape == (2, 0)
    assert SOLVERS[solver](jnp.zeros((0, 3, 3))).shape == (0, 3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_not_a_number_is_padding(solver):
    """NaN in a padded row must not reach the solvers: one raises, the other never ends."""
    cost = jnp.array([[jnp.nan, 0.5], [0.1, jnp.nan], [jnp.inf, jnp.nan]])
    priced = price_padding(cost, jnp.ones(3, bool), jnp.ones(2, bool))
    assert solve_one(solver, priced).tolist() == [1, 0, -1]
    assert solve_one(solver, cost).tolist() == [1, 0, -1]


@pytest.mark.parametrize("solver", SOLVERS)
def test_permuting_boxes_permutes_the_matching(solver):
    rng = np.random.default_rng(7)
    costs, _, _ = random_padded(rng)
    rows, columns = rng.permutation(Q), rng.permutation(M)
    match = np.asarray(SOLVERS[solver](costs))
    moved = np.asarray(SOLVERS[solver](costs[:, rows][:, :, columns]))
    back = np.where(moved >= 0, columns[moved], -1)
    np.testing.assert_array_equal(back, match[:, rows])


@pytest.mark.parametrize("solver", XLA_SLOW)
def test_same_under_jit_vmap_and_shard_map(solver):
    costs, _, _ = random_padded(np.random.default_rng(9))
    solve = {"scipy": assign, "xla": assign_xla}[solver]
    sharded = jax.device_put(costs, NamedSharding(fsdp_mesh(), P("fsdp")))
    by_shard = jax.shard_map(
        solve,
        mesh=fsdp_mesh(),
        in_specs=P("fsdp"),
        out_specs=P("fsdp"),
        check_vma=solver == "scipy",  # optax's loop carries start as unvarying zeros
    )
    for got in (
        SOLVERS[solver](costs),
        jax.jit(solve)(sharded),
        jax.jit(jax.vmap(jax.vmap(solve)))(costs.reshape(4, 4, Q, M)).reshape(16, Q),
        jax.jit(by_shard)(sharded),
    ):
        np.testing.assert_array_equal(got, assign_on_host(costs))


# A fresh lambda each time: jit would find the trace of an earlier test, with the uncounted solver.


def test_jit_calls_the_host_once_per_batch(calls):
    jax.block_until_ready(jax.jit(lambda cost: assign(cost))(jnp.zeros((4, 3, Q, M))))
    assert calls == [(4, 3, Q, M)]


def test_vmap_calls_the_host_once_per_batch(calls):
    solve = jax.vmap(jax.vmap(lambda cost: assign(cost)))
    jax.block_until_ready(jax.jit(solve)(jnp.zeros((4, 3, Q, M))))
    assert calls == [(4, 3, Q, M)]


def test_plain_jit_gathers_a_sharded_batch_into_one_call(calls):
    costs = jax.device_put(np.zeros((16, Q, M)), NamedSharding(fsdp_mesh(), P("fsdp")))
    jax.block_until_ready(jax.jit(lambda cost: assign(cost))(costs))
    assert calls == [(16, Q, M)]


def test_shard_map_calls_the_host_once_per_shard(calls):
    costs = jax.device_put(np.zeros((16, Q, M)), NamedSharding(fsdp_mesh(), P("fsdp")))
    solve = jax.shard_map(
        lambda cost: assign(cost), mesh=fsdp_mesh(), in_specs=P("fsdp"), out_specs=P("fsdp")
    )
    jax.block_until_ready(jax.jit(solve)(costs))
    assert calls == [(2, Q, M)] * 8


@pytest.mark.parametrize("solver", XLA_SLOW)
def test_gradient_stops_at_the_assignment(solver):
    """A loss over matched costs differentiates through the costs, not the choice."""
    costs, _, _ = random_padded(np.random.default_rng(11))

    def matched_cost(costs):
        match = SOLVERS[solver](costs)[..., None]
        picked = jnp.take_along_axis(costs, jnp.maximum(match, 0), axis=-1)
        return jnp.where(match >= 0, picked, 0.0).sum()

    chosen = assign_on_host(costs)[..., None] == np.arange(M)
    np.testing.assert_array_equal(jax.grad(matched_cost)(jnp.asarray(costs)), chosen)


@pytest.mark.slow
def test_the_host_solver_agrees_with_scipy_matrix_by_matrix():
    """Ties, holes, padding anywhere, both orientations: easy or not, scipy's own choice."""
    rng = np.random.default_rng(9)
    seen = {"easy": 0, "leading": 0, "scattered": 0}
    for levels in (3, 8, 10**6):
        for q, m in itertools.product(range(1, 6), repeat=2):
            cost = (rng.integers(0, levels, (80, q, m)) / levels).astype(np.float32)
            pred = np.arange(q) < rng.integers(0, q + 1, (80, 1))
            true = np.arange(m) < rng.integers(0, m + 1, (80, 1))
            pred[60:], true[60:] = rng.random((20, q)) < 0.7, rng.random((20, m)) < 0.7
            cost = np.where(rng.random(cost.shape) < 0.1 * (levels == 8), np.nan, cost)
            cost = np.asarray(price_padding(cost, pred, true), np.float32)
            real = cost < PAD_COST
            want = [matching._assign_scattered(*one) for one in zip(cost, real, strict=True)]
            np.testing.assert_array_equal(assign_on_host(cost), want)
            hard = matching._assign_easy(cost, real)[1]
            leading = sum(q > 0 for q, _ in matching._leading_blocks(real[hard]))
            seen["easy"] += (~hard).sum()
            seen["leading"] += leading
            seen["scattered"] += hard.sum() - leading
    assert min(seen.values()) > 100, seen
