"""The rule that char_rnn, translation and sequence_shapes train with."""

from __future__ import annotations

import optax

from nnjax.types import Array


def falling_adam(rate: Array, clip: float, updates: int) -> optax.GradientTransformation:
    """Adam with a rate (traced) that falls to zero along half a cosine, the norm of the gradient at most ``clip``."""
    falling = optax.cosine_decay_schedule(1.0, updates)
    return optax.chain(
        optax.clip_by_global_norm(clip), optax.scale_by_adam(), optax.scale_by_schedule(falling), optax.scale(-rate)
    )
