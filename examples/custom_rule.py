"""Rules of your own, for `shoal merge A.onnx B.onnx C.onnx -o OUT.onnx --rule-file custom_rule.py --method midrange`.

A rule is a function of one coordinate: the values that the models have there, and the models' weights.  It is compiled
to native code when it is first used (pip install 'shoal[rules]').
"""

import shoal


@shoal.rule
def midrange(values, weights):  # noqa: ARG001  (every rule gets both)
    """The middle between the smallest and the largest value."""
    return 0.5 * (values.min() + values.max())


@shoal.rule
def mean_without_extremes(values, weights):
    """The weighted mean without the smallest and the largest value, where there are at least three."""
    low, high = values.argmin(), values.argmax()
    total = 0.0
    weight = 0.0
    for i in range(len(values)):
        if len(values) < 3 or (i != low and i != high):
            total += weights[i] * values[i]
            weight += weights[i]
    return total / weight if weight > 0 else values.mean()
