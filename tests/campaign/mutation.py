"""Damage to bytes as disks, networks and people do it."""

from __future__ import annotations

import numpy as np


def mutate(data: bytes, random: np.random.Generator, head: int = 4096) -> bytes:
    """One to three kinds of damage; half of it to the first bytes, where the headers are.

    Args:
        data: Content of a whole file.
        random: Draws what and where.
        head: Length of what is damaged more often.
    """
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 4))):
        length = len(changed)
        if not length:
            break
        reach = min(length, head) if random.integers(2) else length
        start = int(random.integers(reach))
        count = int(random.integers(1, 1 + min(64, length)))
        match random.integers(8):
            case 0:
                changed[start] ^= 1 << int(random.integers(8))
            case 1:
                changed[start] = int(random.integers(256))
            case 2:
                del changed[start:]
            case 3:
                del changed[start : start + count]
            case 4:
                changed[start : start + count] = bytes(count)
            case 5:
                other = int(random.integers(length))
                changed[start:start] = changed[other : other + count]
            case 6:
                extreme = [0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1]
                value = extreme[int(random.integers(len(extreme)))]
                size = max(1, (value.bit_length() + 7) // 8)
                order = "little" if random.integers(2) else "big"
                changed[start : start + size] = value.to_bytes(size, order)
            case _:
                changed += random.bytes(count)
    return bytes(changed)
