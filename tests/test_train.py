"""A training run: exact trajectories, the options of `Config`, and that it jits, vmaps, resumes and saves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from nnjax import estimate, losses, models, train
from nnjax.results import ResultsError
from nnjax.train import Config, Network, make_train

LINEAR = Network(
    init=lambda key, x: ({"w": jnp.zeros(x.shape[1])}, {}),
    apply=lambda params, stats, x, *, key, train: (x @ params["w"], stats),
)
COUNTER = Network(  # the loss of example i is its own parameter, so a gradient step of 1 counts its visits
    init=lambda key, x: ({"w": jnp.zeros(7)}, {}),
    apply=lambda params, stats, x, *, key, train: (params["w"][x], stats),
)


def _sgd(hparams):
    return optax.sgd(hparams["lr"])


def _problem(n=12, d=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype("float32")
    return x, (x @ rng.normal(size=d) + 0.1 * rng.normal(size=n)).astype("float32")


def _half_squared(prediction, target):
    return 0.5 * (prediction - target) ** 2


def _numpy_sgd(x, y, lr, batches):
    w, path = np.zeros(x.shape[1]), []
    for batch in batches:
        w = w - lr * x[batch].T @ (x[batch] @ w - y[batch]) / len(batch)
        path.append(w)
    return np.array(path)


@pytest.mark.parametrize("batch", [None, 4, 1, 5])
def test_trajectory_is_that_of_plain_gradient_descent(batch):
    x, y = _problem()
    order = np.arange(12)
    size = batch or 12
    batches = [order[i : i + size] for i in range(0, 12, size)] * 3
    config = Config(epochs=3, batch_size=batch, shuffle=False, evaluate_every=1)
    result = make_train(LINEAR, _half_squared, _sgd, config)(jax.random.key(0), {"lr": 0.1}, {"train": (x, y)})
    path = _numpy_sgd(x, y, 0.1, batches)
    assert int(result.step) == len(batches)
    np.testing.assert_allclose(result.params["w"], path[-1], rtol=1e-5)
    expected = [0.5 * np.mean((x @ w - y) ** 2) for w in path]
    np.testing.assert_allclose(result.history["train_loss"], expected, rtol=1e-4)


def _visits(config, epochs=1, key=0):
    index = np.arange(7, dtype=np.int32)
    run = make_train(COUNTER, lambda p, t: p, _sgd, dataclasses.replace(config, epochs=epochs))
    result = run(jax.random.key(key), {"lr": 1.0}, {"train": (index, index)})
    return -np.asarray(result.params["w"])


def test_every_example_is_visited_once_an_epoch():
    config = Config(epochs=1, batch_size=3)
    # Batches of 3, 3 and 1: a visit weighs 1/3, and 1 for the example that is alone.
    np.testing.assert_allclose(np.sort(_visits(config)), [1 / 3] * 6 + [1], rtol=1e-6)
    np.testing.assert_allclose(_visits(dataclasses.replace(config, batch_size=1), epochs=4), 4, rtol=1e-6)


def test_dropped_remainder_leaves_out_the_last_examples_of_the_order():
    visits = _visits(Config(epochs=1, batch_size=3, remainder="drop"))
    np.testing.assert_allclose(np.sort(visits), [0] + [1 / 3] * 6, rtol=1e-6)
    fixed = _visits(Config(epochs=1, batch_size=3, remainder="drop", shuffle=False))
    np.testing.assert_allclose(fixed, [1 / 3] * 6 + [0], rtol=1e-6)


def test_shuffling_is_uniform_and_changes_every_epoch():
    index = np.arange(7, dtype=np.int32)
    run = make_train(COUNTER, lambda p, t: p, _sgd, Config(epochs=1, batch_size=3))
    keys = jax.vmap(jax.random.key)(jnp.arange(700))
    final = jax.jit(jax.vmap(run, in_axes=(0, None, None)))(keys, {"lr": 1.0}, {"train": (index, index)}).params["w"]
    counts = np.bincount(np.argmax(-np.asarray(final), axis=1), minlength=7)  # which example was alone in its batch
    assert abs(counts - 100).max() < 4 * np.sqrt(700 * 6 / 49)
    many = _visits(Config(epochs=1, batch_size=3), epochs=8)
    assert many.max() < 8  # not the same example alone in all epochs


def test_evaluation_at_chosen_steps_sees_the_same_run():
    x, y = _problem()
    base = Config(steps=32, batch_size=4)
    every = make_train(LINEAR, _half_squared, _sgd, dataclasses.replace(base, evaluate_every=1))
    steps = train.log_spaced_steps(32, 6)
    some = make_train(LINEAR, _half_squared, _sgd, dataclasses.replace(base, evaluate_at=steps))
    data, hparams = {"train": (x, y), "test": _problem(seed=1)}, {"lr": 0.05}
    dense = every(jax.random.key(3), hparams, data).history
    sparse = some(jax.random.key(3), hparams, data).history
    assert tuple(sparse["step"].tolist()) == steps == (0, 1, 2, 4, 8, 16, 32)
    np.testing.assert_array_equal(sparse["test_loss"][1:], dense["test_loss"][np.array(steps[1:]) - 1])
    np.testing.assert_allclose(sparse["train_loss"][0], 0.5 * np.mean(y**2), rtol=1e-5)


def test_running_loss_is_the_mean_over_the_updates_since_the_evaluation_before():
    x, y = _problem()
    config = Config(steps=4, evaluate_every=2)
    result = make_train(LINEAR, _half_squared, _sgd, config)(jax.random.key(0), {"lr": 0.1}, {"train": (x, y)})
    before = [np.zeros(3), *_numpy_sgd(x, y, 0.1, [np.arange(12)] * 3)]
    each = [0.5 * np.mean((x @ w - y) ** 2) for w in before]
    np.testing.assert_allclose(result.history["running_loss"], [np.mean(each[:2]), np.mean(each[2:])], rtol=1e-5)


def test_evaluation_in_batches_is_exact():
    x, y = _problem(n=11)
    whole = Config(steps=3)
    parts = dataclasses.replace(whole, evaluation_batch=4)
    data = {"train": (x, y), "test": (*_problem(n=9, seed=2), np.linspace(0, 1, 9, dtype="float32"))}
    runs = [make_train(LINEAR, _half_squared, _sgd, c)(jax.random.key(0), {"lr": 0.1}, data) for c in (whole, parts)]
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose(runs[0].history[name], runs[1].history[name], rtol=1e-5)
    x_test, y_test, weight = data["test"]
    expected = np.average(0.5 * (x_test @ np.asarray(runs[0].params["w"]) - y_test) ** 2, weights=weight)
    np.testing.assert_allclose(runs[0].history["test_loss"][-1], expected, rtol=1e-4)


def test_splits_that_nobody_reads_are_not_evaluated():
    data = {"train": _problem(n=11), "validation": _problem(n=9, seed=2), "test": _problem(n=9, seed=3)}
    every, some = (
        make_train(LINEAR, _half_squared, _sgd, Config(steps=3, evaluate=names, select="validation_loss"))
        for names in (None, ("validation",))
    )
    all_of_it, result = (run(jax.random.key(0), {"lr": 0.1}, data) for run in (every, some))
    assert sorted(result.history) == ["running_loss", "step", "validation_loss"]
    np.testing.assert_array_equal(result.history["validation_loss"], all_of_it.history["validation_loss"])
    np.testing.assert_array_equal(result.params["w"], all_of_it.params["w"])


def _overfitting():
    """A run whose validation loss falls, then rises: validation follows another weight vector."""
    x, y = _problem(n=8, d=8)
    x_val, _ = _problem(n=30, d=8, seed=5)
    config = Config(steps=40, evaluate_every=1, select="validation_loss")
    target = 0.5 * x_val @ (np.linalg.pinv(x) @ y).astype("float32")  # half of what training ends at
    return config, {"train": (x, y), "validation": (x_val, target)}


def test_early_stopping_returns_the_best_validation_parameters():
    config, data = _overfitting()
    result = make_train(LINEAR, _half_squared, _sgd, config)(jax.random.key(0), {"lr": 0.05}, data)
    best = int(np.argmin(result.history["validation_loss"]))
    assert 0 < best < 39, "the problem must overfit for this test to say anything"
    assert int(result.step) == best + 1
    assert int(result.last) == 40
    path = _numpy_sgd(*data["train"], 0.05, [np.arange(8)] * (best + 1))
    np.testing.assert_allclose(result.params["w"], path[-1], rtol=1e-4)


def test_patience_stops_and_under_vmap_each_lane_stops_on_its_own():
    config, data = _overfitting()
    free = make_train(LINEAR, _half_squared, _sgd, config)
    patient = make_train(LINEAR, _half_squared, _sgd, dataclasses.replace(config, patience=3))
    rates = jnp.array([0.02, 0.05, 0.2])
    lanes = jax.jit(jax.vmap(lambda lr: patient(jax.random.key(0), {"lr": lr}, data)))(rates)
    for i, rate in enumerate(rates):
        alone, full = (run(jax.random.key(0), {"lr": rate}, data) for run in (patient, free))
        curve = np.asarray(full.history["validation_loss"])
        scores, stop = np.inf, 40
        since = 0
        for step, value in enumerate(curve, 1):
            since = 0 if value < scores else since + 1
            scores = min(scores, value)
            if since >= 3:
                stop = step
                break
        assert int(alone.last) == int(lanes.last[i]) == stop
        np.testing.assert_allclose(lanes.params["w"][i], alone.params["w"], rtol=1e-5)
        assert np.isnan(alone.history["validation_loss"][stop:]).all()
    assert len(set(lanes.last.tolist())) > 1


def test_accumulated_gradients_equal_the_whole_batch():
    x, y = load_iris(return_X_y=True)
    data = {"train": (x[:144].astype("float32"), y[:144].astype("int32"))}
    network = models.network(models.MLP((8,), classes=3))
    config = Config(epochs=3, batch_size=36)
    results = [
        make_train(network, losses.cross_entropy, _sgd, dataclasses.replace(config, accumulate=parts))(
            jax.random.key(0), {"lr": 0.1}, data
        )
        for parts in (1, 4)
    ]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), results[0].params, results[1].params
    )


def test_class_weights_equal_repeating_the_examples():
    x, y = load_iris(return_X_y=True)
    x, y = x.astype("float32"), y.astype("int32")
    repeats = np.array([1, 3, 2])[y]
    network = models.network(models.MLP((), classes=3))
    weighted = make_train(network, losses.cross_entropy, _sgd, Config(steps=20, class_weights=(1.0, 3.0, 2.0)))
    repeated = make_train(network, losses.cross_entropy, _sgd, Config(steps=20))
    a = weighted(jax.random.key(0), {"lr": 0.05}, {"train": (x, y)})
    b = repeated(jax.random.key(0), {"lr": 0.05}, {"train": (np.repeat(x, repeats, 0), np.repeat(y, repeats))})
    np.testing.assert_allclose(a.params["Dense_0"]["kernel"], b.params["Dense_0"]["kernel"], rtol=1e-4, atol=1e-6)
    assert train.balanced_class_weights([0, 0, 0, 1], 3) == (4 / 9, 4 / 3, 0.0)


def test_logistic_regression_reaches_scikit_learns_optimum():
    x, y = load_iris(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0)).astype("float32")
    oracle = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(x, y)

    def penalty(params, hparams):  # scikit-learn's 1/(2 C) |W|^2, which leaves the bias free
        return 0.5 / len(x) * jnp.sum(params["Dense_0"]["kernel"] ** 2)

    network = models.network(models.MLP((), classes=3))
    run = make_train(network, losses.cross_entropy, lambda _: optax.lbfgs(learning_rate=1.0, linesearch=None),
                     Config(steps=400), penalty=penalty)  # fmt: skip
    result = jax.jit(run)(jax.random.key(0), None, {"train": (x, y.astype("int32"))})
    kernel = np.asarray(result.params["Dense_0"]["kernel"]).T
    np.testing.assert_allclose(kernel, oracle.coef_, atol=2e-3)


def test_adam_equals_torch():
    torch = pytest.importorskip("torch")
    x, y = _problem()
    run = make_train(LINEAR, _half_squared, lambda h: optax.adam(h["lr"]), Config(steps=25))
    result = run(jax.random.key(0), {"lr": 0.1}, {"train": (x, y)})
    w = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.1)
    for _ in range(25):
        optimizer.zero_grad()
        (0.5 * (torch.tensor(x) @ w - torch.tensor(y)) ** 2).mean().backward()
        optimizer.step()
    np.testing.assert_allclose(result.params["w"], w.detach().numpy(), rtol=1e-4)


def test_rules_are_told_of_the_evaluations_and_plain_ones_are_left_alone():
    x, y = _problem()
    seen = optax.GradientTransformationExtraArgs(
        init=lambda params: jnp.zeros(2),
        # The latest evaluation's number and training loss, as the update after it is told.
        update=lambda grads, state, params=None, *, history, evaluation, **_: (
            grads,
            jnp.stack([evaluation * 1.0, history["train_loss"][evaluation - 1]]),
        ),
    )
    config = Config(steps=9, evaluate_every=2)
    plain = make_train(LINEAR, _half_squared, _sgd, config)
    told = make_train(LINEAR, _half_squared, lambda h: optax.chain(optax.sgd(h["lr"]), seen), config)
    data = {"train": (x, y)}
    expected = plain(jax.random.key(0), {"lr": 0.1}, data)
    state = told.advance(told.start(jax.random.key(0), {"lr": 0.1}, data), {"lr": 0.1}, data)
    np.testing.assert_array_equal(state.params["w"], expected.params["w"])
    # Evaluations after 2, 4, 6, 8 and 9 updates: the ninth knows of four.
    np.testing.assert_allclose(state.optimizer[1], [4, expected.history["train_loss"][3]], rtol=1e-6)


def test_dropout_acts_in_training_only():
    x, y = load_iris(return_X_y=True)
    data = {"train": (x.astype("float32"), y.astype("int32"))}
    network = models.network(models.MLP((16,), classes=3, dropout=0.5))
    run = jax.jit(make_train(network, losses.cross_entropy, _sgd, Config(steps=5, evaluate_every=1)))
    still = run(jax.random.key(0), {"lr": 0.0}, data).history
    np.testing.assert_array_equal(still["train_loss"], still["train_loss"][0])  # no noise where evaluated
    assert len(np.unique(still["running_loss"])) == 5  # another mask every step


def test_batch_statistics_follow_the_data():
    x = np.random.default_rng(0).normal(3.0, 2.0, (64, 8, 8, 1)).astype("float32")
    y = np.arange(64, dtype=np.int32) % 10
    network = models.network(models.SmallCNN(2))
    result = make_train(network, losses.cross_entropy, _sgd, Config(steps=30, batch_size=32))(
        jax.random.key(0), {"lr": 0.0}, {"train": (x, y)}
    )
    stats = result.stats["batch_stats"]["BatchNorm_0"]
    kernel = result.params["Conv_0"]["kernel"]
    out = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    # 30 steps of momentum .9 forget 96 % of the start; two batches' averages scatter round the whole's.
    np.testing.assert_allclose(stats["mean"], out.mean((0, 1, 2)), atol=0.15)
    np.testing.assert_allclose(stats["var"], out.var((0, 1, 2)), rtol=0.25)


def test_vmap_over_hyperparameters_equals_single_runs_and_traces_once():
    x, y = _problem()
    traces = []

    def rule(hparams):
        traces.append(1)
        return optax.adam(hparams["lr"])

    run = make_train(LINEAR, _half_squared, rule, Config(epochs=4, batch_size=5))
    jitted = jax.jit(jax.vmap(run, in_axes=(0, {"lr": 0}, None)))
    keys, rates = jax.random.split(jax.random.key(1), 3), jnp.array([0.01, 0.1, 0.5])
    lanes = jitted(keys, {"lr": rates}, {"train": (x, y)})
    before = len(traces)
    jitted(keys, {"lr": 2 * rates}, {"train": (x + 1, y)})
    assert len(traces) == before
    for i in range(3):
        alone = run(keys[i], {"lr": rates[i]}, {"train": (x, y)})
        np.testing.assert_allclose(lanes.params["w"][i], alone.params["w"], rtol=1e-5)


def test_patience_costs_no_sorting_and_evaluating_at_every_step():
    x, y = _problem(n=64)
    base = Config(steps=256, batch_size=8, evaluate_at=train.log_spaced_steps(256, 8), select="train_loss")
    text = {}
    for patience in (None, 3):
        run = make_train(LINEAR, _half_squared, _sgd, dataclasses.replace(base, patience=patience))
        lanes = jax.vmap(lambda lr, run=run: run(jax.random.key(0), {"lr": lr}, {"train": (x, y)}))
        text[patience] = jax.jit(lanes).lower(jnp.array([0.1, 0.2])).as_text()
        work = estimate.count_work(run, jax.random.key(0), {"lr": 0.1}, {"train": (x, y)})
        assert work.operations > 256 * 2 * 2 * 8 * 3  # the training itself is counted
    # Shuffling and evaluating stay branches where lanes stop one by one.
    assert text[3].count("stablehlo.case") >= text[None].count("stablehlo.case") > 0


def test_evaluation_in_batches_is_defined_where_zeros_are_not():
    def normalized(params, stats, x, *, key, train):
        return x @ params["w"] / jnp.linalg.norm(x, axis=1), stats

    x, y = _problem(n=11)
    histories = [
        make_train(LINEAR._replace(apply=normalized), _half_squared, _sgd, Config(steps=3, evaluation_batch=size))(
            jax.random.key(0), {"lr": 0.1}, {"train": (x, y)}
        ).history["train_loss"]
        for size in (None, 4)
    ]
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-5)


def test_a_class_without_a_weight_is_seen():
    x, y = load_iris(return_X_y=True)
    data = {"train": (x.astype("float32"), y.astype("int32"))}
    network = models.network(models.MLP((), classes=3))
    run = make_train(network, losses.cross_entropy, _sgd, Config(steps=2, class_weights=(1.0, 2.0)))
    assert bool(run(jax.random.key(0), {"lr": 0.1}, data).diverged)


def test_divergence_is_told_and_an_early_stop_is_none():
    config, data = _overfitting()
    patient = make_train(LINEAR, _half_squared, _sgd, dataclasses.replace(config, patience=3))
    stopped = patient(jax.random.key(0), {"lr": 0.05}, data)
    assert np.isnan(stopped.history["validation_loss"][-1])
    assert not bool(stopped.diverged)
    assert bool(patient(jax.random.key(0), {"lr": 1e20}, data).diverged)


def test_masks_weigh_examples():
    x, y = _problem()
    mask = np.arange(12) < 7
    run = make_train(LINEAR, _half_squared, _sgd, Config(steps=4))
    masked = run(jax.random.key(0), {"lr": 0.1}, {"train": (x, y, mask)})
    alone = run(jax.random.key(0), {"lr": 0.1}, {"train": (x[:7], y[:7])})
    np.testing.assert_allclose(masked.params["w"], alone.params["w"], rtol=1e-5)


def test_checkpoints_of_another_run_are_refused(tmp_path):
    x, y = _problem()
    run = make_train(LINEAR, _half_squared, _sgd, Config(steps=4))
    data = {"train": (x, y)}
    train.fit(run, jax.random.key(0), {"lr": 0.1}, data, checkpoint=tmp_path / "run")
    longer = dataclasses.replace(run, config=Config(steps=8))
    for other in (
        (run, jax.random.key(1), {"lr": 0.1}, data),
        (run, jax.random.key(0), {"lr": 0.2}, data),
        (run, jax.random.key(0), {"lr": 0.1}, {"train": (x, y + 1)}),
        (longer, jax.random.key(0), {"lr": 0.1}, data),
    ):
        with pytest.raises(ValueError, match="another run"):
            train.fit(*other, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="segments=0"):
        train.fit(run, jax.random.key(0), {"lr": 0.1}, data, segments=0)


def test_segments_checkpoints_and_resuming_change_no_number(tmp_path):
    x, y = _problem()
    run = make_train(
        LINEAR, _half_squared, lambda h: optax.adam(h["lr"]), Config(steps=30, batch_size=5, evaluate_every=3)
    )
    data, args = {"train": (x, y)}, (jax.random.key(2), {"lr": 0.1})
    whole = jax.jit(run)(*args, data)
    seen = []
    pieces = train.fit(run, *args, data, segments=4, on_segment=lambda state, done, total: seen.append((done, total)))
    assert seen[-1] == (10, 10)
    assert len(seen) == 5

    def stop(state, done, total):
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.fit(run, *args, data, segments=5, on_segment=stop, checkpoint=tmp_path / "run")
    done = []
    resumed = train.fit(run, *args, data, segments=5, checkpoint=tmp_path / "run",
                        on_segment=lambda state, d, total: done.append(d))  # fmt: skip
    assert done[0] == 6
    for other in (pieces, resumed):
        jax.tree.map(np.testing.assert_array_equal, whole, other)


def test_predict_in_batches_equals_one_pass():
    model = models.MLP((5,), classes=3)
    network = models.network(model)
    x = np.random.default_rng(0).normal(size=(23, 4)).astype("float32")
    params, stats = network.init(jax.random.key(0), x)
    whole = network.apply(params, stats, x, key=None, train=False)[0]
    for size in (1, 7, 23, 100):
        predicted = jax.jit(lambda p, size=size: train.predict(network, p, stats, x, batch_size=size))(params)
        np.testing.assert_allclose(predicted, whole, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="batch_size=0"):
        train.predict(network, params, stats, x, batch_size=0)
    with pytest.raises(ValueError, match="no examples"):
        train.predict(network, params, stats, x[:0])


def test_saved_model_round_trip(tmp_path):
    network = models.network(models.SmallCNN(2))
    x = np.ones((2, 8, 8, 1), "float32")
    params, stats = network.init(jax.random.key(0), x)
    train.save(tmp_path / "model.npz", params, stats, {"model": "SmallCNN", "width": 2})
    saved = train.load(tmp_path / "model.npz")
    assert saved.info == {"model": "SmallCNN", "width": 2}
    jax.tree.map(np.testing.assert_array_equal, (params, stats), (saved.params, saved.stats))
    again = network.apply(saved.params, saved.stats, x, key=None, train=False)[0]
    np.testing.assert_array_equal(again, network.apply(params, stats, x, key=None, train=False)[0])


def test_loading_what_is_no_model_is_one_sentence(tmp_path):
    with pytest.raises(ResultsError, match="no file"):
        train.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ResultsError, match="damaged"):
        train.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(ResultsError, match="not a model"):
        train.load(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="nested dicts"):
        train.save(tmp_path / "list.npz", [np.ones(2)])
    with pytest.raises(ValueError, match="without '/'"):
        train.save(tmp_path / "slash.npz", {"a/b": np.ones(2)})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either epochs or steps"),
        ({"epochs": 1, "steps": 1}, "either epochs or steps"),
        ({"epochs": 0}, "epochs=0"),
        ({"steps": 5, "batch_size": -3}, "batch_size=-3"),
        ({"steps": 5, "batch_size": 2.5}, "batch_size=2.5"),
        ({"steps": 5, "remainder": "pad"}, "remainder='pad'"),
        ({"steps": 5, "patience": 2}, "needs select"),
        ({"steps": 5, "evaluate_at": (3, 1)}, "ascending"),
        ({"steps": 5, "evaluate_at": (0,)}, "one at least > 0"),
        ({"steps": 5, "evaluate_at": (1,), "evaluate_every": 1}, "not both"),
    ],
)
def test_bad_configuration_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Config(**fields)


@pytest.mark.parametrize(
    ("config", "data", "message"),
    [
        (Config(steps=2, batch_size=13), {"train": _problem()}, "more than the 12"),
        (Config(steps=2, accumulate=5), {"train": _problem()}, "must divide"),
        (Config(steps=2, evaluate_at=(3,)), {"train": _problem()}, "last step, 2"),
        (Config(steps=2), {"test": _problem()}, "split named 'train'"),
        (Config(steps=2), {"train": (np.ones((3, 3)), np.ones(2))}, "different lengths"),
        (Config(steps=2, select="validation_loss"), {"train": _problem()}, "must be one of train_loss"),
        (Config(steps=2, evaluate=("dev",)), {"train": _problem()}, "names 'dev'; the splits are train"),
    ],
)
def test_bad_data_is_named(config, data, message):
    with pytest.raises(ValueError, match=message):
        make_train(LINEAR, _half_squared, _sgd, config)(jax.random.key(0), {"lr": 0.1}, data)
    with pytest.raises(ValueError, match="first=0"):
        train.log_spaced_steps(5, 3, first=0)
