"""What does a second Dask worker buy? ``python -m tests.benchmarks.cluster [--repeats N] [--lanes N] [--steps N]``

A sweep that only computes, on one worker and on two, each bound to a core of its own; then on two of which one is
killed when half of the chunks are done. The contestants take turns; every one starts workers of its own, and what is
timed begins when they are there: sending the work, compiling it, every chunk. Prints a Markdown table, and ends with
exit code 1 where a number differs between contestants by a single bit, or two workers take 0.7 times as long as
one or longer. Needs two idle cores.
"""

import argparse
import functools
import os
import signal
import statistics
import sys
import time

LIMIT = 0.7


def lane(key, hparams, data, *, steps):
    """A small net's forward pass over and over."""
    import jax
    import jax.numpy as jnp

    x = jax.random.normal(key, (64, 64))
    x, course = jax.lax.scan(lambda x, _: (jnp.tanh(x @ x.T / 64 + hparams["a"]), jnp.mean(x)), x, length=steps)
    return {"x": x[0], "course": course[-10:]}


def measure(workers: int, killed: bool, lanes: int, steps: int) -> tuple[float, bytes, int]:
    """Seconds of one sweep, the bytes of its results and the number of its chunks."""
    import jax

    from nnjax import cluster
    from nnjax.monitor import Monitor
    from nnjax.sweep import sweep

    chunks = lanes // 2
    with cluster.local(workers, cores_each=1) as client:
        victim = list(client.run(os.getpid).values())[-1]

        class Killer(Monitor):
            def count(self, kind, number=1):
                super().count(kind, number)
                if killed and kind == "chunks" and self.counts[kind] == chunks // 2:
                    os.kill(victim, signal.SIGKILL)

        monitor = Killer()
        start = time.perf_counter()
        found = sweep(
            functools.partial(lane, steps=steps), {"a": [0.0, 0.1], "seed": range(chunks)}, key=jax.random.key(0),
            width=2, chunk_seconds=1e-12, executor=cluster.dask_executor(client), monitor=monitor,
        )  # fmt: skip
        seconds = time.perf_counter() - start
    assert monitor.counts["chunks"] == chunks
    return seconds, found["x"].values.tobytes() + found["course"].values.tobytes(), monitor.counts["chunks"]


CONTESTANTS = {
    "one worker": (1, False),
    "two workers": (2, False),
    "two workers, one killed half-way": (2, True),
}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--lanes", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40_000)
    given = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    results = set()
    for _ in range(given.repeats):
        for name, (workers, killed) in CONTESTANTS.items():
            spent, content, chunks = measure(workers, killed, given.lanes, given.steps)
            seconds[name].append(spent)
            results.add(content)
            print(f"{name}: {spent:.1f} s", file=sys.stderr)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{given.lanes} lanes of {given.steps} steps in {chunks} chunks; load {os.getloadavg()[0]:.1f}\n")
    print("| contestant | wall time, s, median (range) | over one worker |")
    print("|---|---:|---:|")
    for name, values in seconds.items():
        ratio = middle[name] / middle["one worker"]
        print(f"| {name} | {middle[name]:.1f} ({min(values):.1f} to {max(values):.1f}) | {ratio:.2f} |")
    print(f"\nResults: {'the same bit for bit' if len(results) == 1 else 'DIFFERENT'}.")
    ratio = middle["two workers"] / middle["one worker"]
    print(f"Two workers take {ratio:.2f} times as long as one (below {LIMIT} wanted).")
    return 0 if len(results) == 1 and ratio < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
