from collections.abc import Callable

from torch import Tensor

torch_version: str

class Memory:
    def __init__(self, rows: int, sinks: int) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def sinks(self) -> int: ...
    @property
    def position(self) -> int: ...
    @property
    def kept(self) -> int: ...

class Trunk:
    def __init__(self, config: str, generation: str, where: str) -> None: ...
    def parameters(self) -> list[tuple[str, list[int], bool]]: ...
    def numbers(self) -> dict[str, object]: ...
    def random(self, seed: int) -> list[Tensor]: ...
    def load(self, path: str) -> list[Tensor]: ...
    def forward(
        self,
        parameters: list[Tensor],
        tokens: Tensor,
        window: int,
        sinks: int,
        top_blocks: int,
        recompute: bool,
        memory: Memory | None,
        hidden: bool,
        routings: bool,
    ) -> tuple[Tensor, list[Tensor], list[tuple[int, Tensor, Tensor, Tensor, Tensor]]]: ...
    def save(self, parameters: list[Tensor], folder: str, bf16: bool, config: str, source: str | None) -> None: ...

def config_texts(path: str) -> tuple[str, str]: ...
def run(
    file: str,
    output: str,
    resume: bool,
    rank: int,
    size: int,
    sum: Callable[[list[Tensor]], None],
    exchange: Callable[[Tensor, list[int], list[int]], Tensor] | None,
    stop: Callable[[], bool],
    report: Callable[[int, int, float, float, float, str], None],
) -> tuple[int, float, float, float, str]: ...
