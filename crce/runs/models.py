"""The base model and its judge that a process keeps loaded. Imports torch only when the first is loaded."""

from typing import TYPE_CHECKING

from crce.base_version import find_digest, fits
from crce.judges.choices import AUTO, choose_judge

if TYPE_CHECKING:
    from crce.judges.judge import Judge
    from crce.models.diffusion import Diffusion


class Models:
    """One base at a time, since two may not fit on the device."""

    def __init__(self, device: str = "auto"):
        self._device = device
        self._key: tuple[str, str, str, str] | None = None
        self._model: Diffusion | None = None
        self._judge_key: tuple[str, str] | None = None
        self._judge: Judge | None = None

    @property
    def base(self) -> str | None:
        """The base that is loaded now."""
        return self._key and self._key[0]

    def get(self, base: str, device: str = "auto", dtype: str = "auto") -> "Diffusion":
        """The base, on our own device unless another is named. Raises CrceError if it cannot be loaded."""
        from crce.models.diffusion import Diffusion
        from crce.models.memory import free_memory

        key = base, self._device if device == "auto" else device, dtype, find_digest(base)
        if self._key != key or self._model is None:
            self._key = self._model = None
            free_memory()
            self._model = Diffusion.load(*key[:3])
            self._key = key
        return self._model

    def get_loaded(self, base: str) -> "Diffusion":
        """The base on the device and in the dtype in which it is loaded now. Raises CrceError if it is not and cannot
        be loaded."""
        if self._model is not None and base == self.base and fits(self._model.digest, find_digest(base)):
            return self._model
        return self.get(base)

    def judge(self, base: str, judge: str = AUTO) -> "Judge":
        """The judge for the base, on the base's device; one is kept. Raises CrceError where there is none (see
        `judges.load`)."""
        from crce.judges.load import load_judge

        key = base, choose_judge(base, judge)
        if self._judge_key != key or self._judge is None:
            self._drop_judge()
            self._judge = load_judge(*key, str(self._model.device) if self._model else self._device)
            self._judge_key = key
        return self._judge

    def rest_judge(self) -> None:
        """Takes the judge off the device, so that the training has all of it."""
        if self._judge:
            self._judge.rest()

    def _drop_judge(self) -> None:
        self.rest_judge()
        self._judge_key = self._judge = None
