"""Results whose lanes are lost: a report must be made of them all the same."""

from collections.abc import Iterator

import numpy as np
import xarray as xr


def each_lost(tree: xr.DataTree) -> Iterator[xr.DataTree]:
    """The tree with all numbers of one group not finite, for each group in turn, and of all groups together.

    Only what has all dimensions of a lane is lost: where a group has ``diverged``, what shares its dimensions.
    """
    groups = {name.strip("/"): tree[name].to_dataset() for name in tree.groups if tree[name].data_vars}
    for value in (np.nan, np.inf):
        for lost in [*([name] for name in groups), list(groups)]:
            yield xr.DataTree.from_dict(
                {name: _lost(group, value) if name in lost else group for name, group in groups.items()}
            )


def _lost(group: xr.Dataset, value: float) -> xr.Dataset:
    lane = set(group["diverged"].dims) if "diverged" in group else {"seed"}
    found = group.copy(deep=True)
    for name, each in group.data_vars.items():
        if each.dtype.kind == "f" and lane <= set(each.dims):
            found[name] = xr.full_like(each, value)
    return found.assign(diverged=xr.ones_like(group["diverged"])) if "diverged" in group else found
