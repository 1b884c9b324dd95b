"""Train a logistic regression at one site of a swarm: python train_in_swarm.py SITE.toml BASE.onnx DATA.npz ROUNDS

SITE.toml  this site's settings, after `shoal join`        BASE.onnx  shoal.save({"w": zeros(f), "b": zeros(1)}, ...)
DATA.npz   x float[n, f], y 0 or 1 [n]: never leaves the site

A fifth of the data measures each certified model; the site merges seldom at first, and more often as the loss falls.
"""

from __future__ import annotations

import sys

import numpy as np

import shoal


def probabilities(net: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(x @ net["w"] + net["b"])))


def train(net: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, steps: int) -> None:
    """Plain gradient descent, in place."""
    for _ in range(steps):
        wrong = probabilities(net, x) - y
        net["w"] -= 0.5 * (x.T @ wrong / len(y)).astype(np.float32)
        net["b"] -= np.float32(0.5 * wrong.mean())


def loss(net: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
    right = np.where(y == 1, probabilities(net, x), 1 - probabilities(net, x))
    return float(-np.log(np.clip(right, 1e-12, 1)).mean())


def main(settings: str, base: str, data: str, rounds: int) -> float:
    """Take part in so many rounds; the loss of the last certified model, mean over sites."""
    with np.load(data) as columns:
        x, y = columns["x"], columns["y"]
    held_out = len(y) // 5
    validation, training = (x[:held_out], y[:held_out]), (x[held_out:], y[held_out:])

    def evaluate(net: dict[str, np.ndarray]) -> tuple[int, dict[str, float]]:
        return held_out, {"loss": loss(net, *validation)}

    interval, mean = shoal.Interval(first=40, least=5), float("nan")
    with shoal.join(settings, base, evaluate) as swarm:
        for number in range(rounds):
            net = swarm.tensors
            train(net, *training, steps=interval.steps)
            swarm.merge(net, samples=len(training[1]))
            mean = swarm.mean("loss", wait_s=10) or mean
            print(f"round {number + 1}: loss {mean:.4f}, next after {interval.next(mean)} steps")
    return mean


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
