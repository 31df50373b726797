"""The pickles in torch files, read as a list of operations before torch carries them out."""

from __future__ import annotations

import pickletools
from io import BytesIO

_MOST_PARTS = 2**23  # of what a pickle makes, those that it names again counted again
_MOST_PICKLES = 5  # at the beginning of a torch file without a zip; its numbers stand behind them


def check_pickles(content: bytes) -> None:
    """ValueError where pickles would make objects that take memory or time beyond those of a state dict.

    torch runs no code that a pickle names, but it makes a bytearray of any size, and it hashes tuples of tuples, of
    which few operations make billions. Bytes that are no pickle raise anything.
    """
    file = BytesIO(content)
    for _ in range(_MOST_PICKLES):
        if file.tell() < len(content):
            _check_pickle(file)


def _check_pickle(file: BytesIO) -> None:
    """Carry the operations out on numbers: how many parts each object has."""
    mark = -1
    stack: list[int] = []
    memo: dict[int, int] = {}
    for operation, argument, _ in pickletools.genops(file):
        name = operation.name
        if name == "GLOBAL" and str(argument).endswith(" bytearray"):
            raise ValueError("its pickle makes a bytearray")
        if name == "MARK":
            stack.append(mark)
        elif name.endswith("GET"):
            stack.append(memo[int(str(argument))])
        elif name.endswith("PUT") or name == "MEMOIZE":
            memo[len(memo) if argument is None else int(str(argument))] = stack[-1]
        else:
            parts = 1
            before = len(operation.stack_before)
            if pickletools.markobject in operation.stack_before:
                while (top := stack.pop()) != mark:
                    parts += top
                before -= 2  # the mark and what is above it
            for _ in range(before):
                parts += stack.pop()
            if parts > _MOST_PARTS:
                raise ValueError("its pickle names the same parts too often")
            stack += [parts] * len(operation.stack_after)
