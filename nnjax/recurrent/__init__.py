"""Recurrent cells and fast loops over whole sequences: simple RNN, LSTM and GRU, array to array.

Batches come first: x `(n, t, d)`, states `(n, h)`, outputs `(n, t, h)`. `rnn_step`, `lstm_step` and `gru_step` are one
step; `rnn`, `lstm` and `gru` run it over a sequence, with back-propagation through time written out (`loops`).

Reverse mode works to any order. Forward mode (`jax.jvp`, `jax.hessian`) does not, as with every `jax.custom_vjp`: scan
`*_step` where it is needed.
"""

from nnjax.recurrent.cells import GRUParams, LSTMParams, RNNParams, gru_step, lstm_step, rnn_step
from nnjax.recurrent.sequences import gru, last, lstm, rnn, sequence_mask

__all__ = [
    "GRUParams",
    "LSTMParams",
    "RNNParams",
    "gru",
    "gru_step",
    "last",
    "lstm",
    "lstm_step",
    "rnn",
    "rnn_step",
    "sequence_mask",
]
