"""Transfer learning: pretrained parameters, another head, layers frozen by their paths, cached features.

Parameters are named by their paths, "conv1/kernel", and chosen by patterns: a pattern is compared with the path and
with each of its beginnings, "conv1" too, so that a layer's name stands for all that it holds; ``*`` stands for any
text, ``?`` for a character, ``[13]`` for one of several; capitals count. A pattern after ``!`` takes back what those
before it chose: ``("*", "!logits")`` is everything but the logits. One that matches nothing is an error, never a layer
that trains unnoticed.

Fine-tuning with everything frozen but a new head:

    pretrained = transfer.load_mobilenet()
    frozen = ("*", "!logits")
    start = pretrained.params, pretrained.stats
    net = transfer.network(MobileNet(0.75, classes=2), *start, head="logits", frozen=frozen)
    rule = lambda hparams: transfer.freeze(optax.adam(hparams["rate"]), pretrained.params, frozen)
    train = make_train(net, losses.cross_entropy, rule, Config(epochs=5, batch_size=32))

Where nothing but the head is trained, `features` computes once what the frozen layers give.
"""

from nnjax.transfer.freezing import Stage, StagedState, freeze, gradual, network
from nnjax.transfer.patterns import Patterns, check_architecture, chosen, paths, replace_head
from nnjax.transfer.pretrained import Pretrained, features, load_mobilenet, symmetric

__all__ = [
    "Patterns",
    "Pretrained",
    "Stage",
    "StagedState",
    "check_architecture",
    "chosen",
    "features",
    "freeze",
    "gradual",
    "load_mobilenet",
    "network",
    "paths",
    "replace_head",
    "symmetric",
]
