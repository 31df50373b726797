"""What every fuzzed case must keep to: a result or an error of one line, soon, and without filling the memory."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

SECONDS = 10
GIGABYTES = 2.0


class Fuzzer:
    """Runs cases; `failures` says which of them did something else than return, or err in one line."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.accepted = self.refused = 0

    def __call__(self, name: object, use: Callable[[], Any]) -> Any:
        """The result of a case; None where it was refused."""
        signal.alarm(SECONDS)
        try:
            found = use()
            self.accepted += 1
            return found
        except ValueError as error:
            self.refused += 1
            if "\n" in str(error).strip() or not str(error).strip() or len(str(error)) > 1000:
                self.failures.append(f"{name}: a message of several lines, or none, or a long one: {str(error)[:200]}")
        except TimeoutError:
            self.failures.append(f"{name}: more than {SECONDS} s")
        except BaseException as error:
            self.failures.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
        finally:
            signal.alarm(0)
        return None


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Some content with a part flipped, cut, doubled, or put elsewhere."""
    kind, data = rng.integers(5), bytearray(content)
    first, last = sorted(int(i) for i in rng.integers(0, len(data) + 1, 2))
    if kind == 0:
        for place in rng.integers(0, len(data), 1 + rng.integers(8)):
            data[place] = int(rng.integers(256))
    elif kind == 1:
        del data[first:]
    elif kind == 2:
        del data[first:last]
    elif kind == 3:
        data[first:first] = data[first:last]
    else:
        data[first:last] = bytes(rng.integers(0, 256, last - first, dtype=np.uint8))
    return bytes(data)


@pytest.fixture
def mutated() -> Callable[[bytes, np.random.Generator], bytes]:
    """A function that damages a file's content."""
    return mutate


@pytest.fixture
def fuzzed() -> Iterator[Fuzzer]:
    """A fuzzer, whose failures fail the test when it ends, as does memory beyond the limit."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fuzzer = Fuzzer()
    yield fuzzer
    signal.signal(signal.SIGALRM, before)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 2**20
    assert not fuzzer.failures, "\n".join(fuzzer.failures[:20])
    assert grown < GIGABYTES
