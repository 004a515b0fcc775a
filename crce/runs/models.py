from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crce.judges.embedded import EmbeddedJudge
    from crce.models.diffusion import Diffusion


class Models:
    """The base that is loaded: one at a time, since two may not fit on the device."""

    def __init__(self, device: str = "auto"):
        self._device = device
        self._key: tuple[str, str, str] | None = None
        self.model: Diffusion | None = None
        self._judges: dict[str, EmbeddedJudge] = {}

    def get(self, base: str, device: str = "auto", dtype: str = "auto") -> "Diffusion":
        """The base on our own device, unless another is named. Raises CrceError if it cannot be loaded."""
        from crce.models.diffusion import Diffusion
        from crce.models.memory import free_memory

        key = base, self._device if device == "auto" else device, dtype
        if self._key != key:
            self._key = self.model = None
            free_memory()
            self.model = Diffusion.load(*key)
            self._key = key
        return self.model

    def glance(self, base: str) -> "Diffusion":
        """The base as it happens to be loaded, whatever the device and dtype."""
        return self.model if base == self.base else self.get(base)

    @property
    def base(self) -> str | None:
        return self._key and self._key[0]

    def judge(self, base: str) -> "EmbeddedJudge":
        """Raises CrceError for a base without one."""
        from crce.judges.embedded import EmbeddedJudge

        if base not in self._judges:
            self._judges[base] = EmbeddedJudge.load(base)
        return self._judges[base]
