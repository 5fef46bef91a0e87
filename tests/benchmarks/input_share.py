"""Does decoding pictures hold training up? ``python -m tests.benchmarks.input_share [--updates N] [--width K]``

A small convolutional net on the photographs of ants and bees at 141 x 141 pixels, batches of 32, augmented in the
update: streamed from the archive, and the same updates with the pictures decoded beforehand. Waiting alone flatters
where the device is the CPU, for the threads that decode take cores from the update; what streaming costs beyond the
other is the honest share. The two take turns. Needs the photographs (``NNJAX_DATA``).
"""

import argparse
import statistics
import time

import jax
import numpy as np
import optax

from nnjax import losses, models, train
from nnjax.data import augment, load_images, stream

SIZE, BATCH = 141, 32


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--updates", type=int, default=14)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    folder, _ = load_images("hymenoptera")
    pictures = folder.read(range(len(folder)), SIZE)
    run = train.make_train(
        models.network(models.SmallCNN(chosen.width, classes=2)), losses.cross_entropy,
        lambda h: optax.sgd(h["rate"], 0.9), train.Config(steps=chosen.updates, batch_size=BATCH),
        augment=lambda key, x, h: augment.affine(key, x, shift=8.0, rotate=15.0, zoom=0.1, mirror=0.5),
    )  # fmt: skip
    key, hparams = jax.random.key(0), {"rate": 0.01}

    class Decoded:
        """The pictures in memory, in the place of the folder."""

        def __getattr__(self, name: str) -> object:
            return getattr(folder, name)

        def __len__(self) -> int:
            return len(folder)

        def read(self, indices: object, size: int, *, fit: str = "crop") -> np.ndarray:
            return pictures[np.asarray(indices)]

    seconds: dict[str, list[float]] = {"streamed": [], "decoded beforehand": []}
    waited = []
    for _ in range(chosen.rounds):
        for name in seconds:
            source = stream(folder if name == "streamed" else Decoded(), BATCH, SIZE, seed=0)  # type: ignore[arg-type]
            train.fit_stream(run, key, hparams, source)
            seconds[name].append(source.timing.total / (chosen.updates - 1))
            if name == "streamed":
                waited.append(source.timing.share)
    begin = time.perf_counter()
    folder.read(range(BATCH), SIZE)
    decoding = time.perf_counter() - begin
    a, b = (statistics.median(each) for each in seconds.values())
    print(f"SmallCNN of width {chosen.width}, {SIZE} x {SIZE}, batch {BATCH}, {jax.devices()[0].device_kind}\n")
    print("| batches | s an update, median (range) | waited |\n|---|---:|---:|")
    for name, each in seconds.items():
        shown = f"{100 * statistics.median(waited):.1f} %" if name == "streamed" else "-"
        print(f"| {name} | {statistics.median(each):.3f} ({min(each):.3f} to {max(each):.3f}) | {shown} |")
    print(f"\nStreaming costs {100 * (a - b) / a:.1f} % of an update; one thread decodes a batch in {decoding:.3f} s.")


if __name__ == "__main__":
    main()
