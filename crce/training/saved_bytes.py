"""How many bytes autograd keeps for backward passes, counted while a step runs, also on fake tensors."""

from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class SavedBytes:
    """Counts each storage once, for as long as it is kept; `peak` is the most at one time."""

    def __init__(self, known: Iterable[Tensor]):
        """known: tensors that are counted elsewhere."""
        # The tensors are kept too, because the address of a freed one is used again.
        self._known = {_storage(tensor): tensor for tensor in known}
        self._kept: Counter[int] = Counter()
        self.now = self.peak = 0

    def counting(self) -> AbstractContextManager[object]:
        return saved_tensors_hooks(lambda tensor: _Kept(self, tensor), lambda kept: kept.tensor)

    def add(self, tensor: Tensor, times: int) -> None:
        key = _storage(tensor)
        before, self._kept[key] = self._kept[key], self._kept[key] + times
        if key not in self._known and not (before and self._kept[key]):
            self.now += times * tensor.untyped_storage().nbytes()
            self.peak = max(self.peak, self.now)


class _Kept:
    """A tensor that autograd holds, until it lets go."""

    def __init__(self, counter: SavedBytes, tensor: Tensor):
        self.counter, self.tensor = counter, tensor
        counter.add(tensor, 1)

    def __del__(self) -> None:
        self.counter.add(self.tensor, -1)


def _storage(tensor: Tensor) -> int:
    """Which memory the tensor is in; views share theirs, and a tensor that is only a shape has one too."""
    return tensor.untyped_storage()._cdata
