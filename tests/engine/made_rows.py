"""The rows that the fixtures `thumbs` and `pairs` make, for fixtures that outlive one test."""

from __future__ import annotations

import random
from typing import Any


def words(generator: random.Random, low: int, high: int) -> str:
    return " ".join(
        "".join(generator.choices("abcdefgh", k=generator.randint(1, 6))) for _ in range(generator.randint(low, high))
    )


def thumbs(n: int, *, seed: int = 0, up: float = 0.5) -> list[dict[str, Any]]:
    generator = random.Random(seed)
    rows = []
    for i in range(n):
        label = generator.random() < up
        rows.append(
            {
                "prompt": [{"role": "user", "content": f"{i} {words(generator, 1, 6)}"}],
                "completion": ("yes " if label else "no ") + words(generator, 1, 8),
                "label": label,
            }
        )
    return rows


def pairs(n: int, *, seed: int = 0) -> list[dict[str, Any]]:
    generator = random.Random(seed)
    return [
        {
            "prompt": [{"role": "user", "content": f"{i} {words(generator, 1, 6)}"}],
            "chosen": "yes " + words(generator, 1, 8),
            "rejected": "no " + words(generator, 1, 8),
        }
        for i in range(n)
    ]
