"""The base model and its judge that a process keeps loaded. Imports torch only when the first is loaded."""

from typing import TYPE_CHECKING

from crce.base_version import find_digest, fits

if TYPE_CHECKING:
    from crce.judges.embedded import EmbeddedJudge
    from crce.models.diffusion import Diffusion


class Models:
    """One base at a time, since two may not fit on the device."""

    def __init__(self, device: str = "auto"):
        self._device = device
        self._key: tuple[str, str, str, str] | None = None
        self._model: Diffusion | None = None
        self._judges: dict[str, EmbeddedJudge] = {}

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

    def judge(self, base: str) -> "EmbeddedJudge":
        """Raises CrceError for a base without one."""
        from crce.judges.embedded import EmbeddedJudge

        if base not in self._judges:
            self._judges[base] = EmbeddedJudge.load(base)
        return self._judges[base]
