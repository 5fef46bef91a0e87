"""When does each strategy for widths win? ``python -m tests.benchmarks.strategies [--seeds N] [--steps N]``

Times ``loop``, ``pad``, ``bucket`` and ``auto`` on two-layer nets over ten widths, in a fresh process each so that
nothing is compiled yet, in turn, and prints a Markdown table: programs, compile and run seconds, and the total
over the fastest of the three. ``auto`` is fine where it loses less than 15 %.
"""

import argparse
import json
import statistics
import subprocess
import sys

WIDTHS = (2, 4, 6, 8, 11, 15, 20, 28, 48, 96)
STRATEGIES = ("loop", "pad", "bucket", "auto")


def measure(strategy: str, seeds: int, steps: int) -> dict[str, float]:
    """One sweep in this process; seconds of compiling and running, and the number of programs."""
    import functools

    import jax
    import numpy as np
    import optax

    from nnjax import losses, models
    from nnjax.monitor import Monitor
    from nnjax.sweep import sweep, use_all_cores
    from nnjax.train import Config, make_train

    use_all_cores()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 64)).astype("float32")
    data = {"train": (x, rng.integers(0, 10, 1000).astype("int32"))}

    def run(key, hparams, data, *, width, steps):
        network = models.padded_mlp(models.MLP((width,)), [hparams["width"]])
        config = Config(steps=steps, batch_size=100, evaluate_every=max(1, steps // 10))
        train = make_train(network, losses.cross_entropy, lambda _: optax.adam(1e-3), config)
        return {"loss": train(key, None, data).history["train_loss"][-1]}

    monitor = Monitor()
    axes = {"width": WIDTHS, "seed": range(seeds)}
    options = {"key": jax.random.key(0), "data": data, "padded": "width", "strategy": strategy, "monitor": monitor}
    sweep(functools.partial(run, steps=steps), axes, **options)
    return {**monitor.seconds, "programs": monitor.counts["programs"]}


def _fresh(strategy: str, seeds: int, steps: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.strategies", "--one", strategy]
    done = subprocess.run(
        [*command, "--seeds", str(seeds), "--steps", str(steps)], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the table, or with ``--one`` the figures of one strategy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", choices=STRATEGIES)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.seeds, given.steps)))
        return
    cases = [(given.seeds, given.steps)] if given.seeds and given.steps else [(5, 300), (5, 2000), (20, 5000)]
    print("| lanes x steps | strategy | programs | compile, s | run, s | total, s (range) | over the best |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for seeds, steps in cases:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in STRATEGIES}
        for _ in range(given.repeats):
            for name in STRATEGIES:
                found[name].append(_fresh(name, seeds, steps))
        totals = {name: [r["compile"] + r["run"] for r in runs] for name, runs in found.items()}
        best = min(statistics.median(totals[name]) for name in STRATEGIES[:3])
        for name, runs in found.items():
            total = statistics.median(totals[name])
            middle = {kind: statistics.median(r[kind] for r in runs) for kind in ("compile", "run", "programs")}
            print(
                f"| {seeds * len(WIDTHS)} x {steps} | {name} | {middle['programs']:.0f} | {middle['compile']:.1f} | "
                f"{middle['run']:.1f} | {total:.1f} ({min(totals[name]):.1f} to {max(totals[name]):.1f}) | "
                f"{total / best:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
