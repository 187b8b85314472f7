"""The result of a comparison in words: the best run, and its training time."""

from __future__ import annotations

from collections.abc import Sequence

from multiseg.pages.numbers import duration
from multiseg.report.facts import RunFacts
from multiseg.settings.metrics import COLUMNS, LOSS, METRICS, SCORES, Metric
from multiseg.topology.words import listed

MOST_NAMED = 6  # runs in one sentence


def deciding_metric(facts: Sequence[RunFacts]) -> Metric | None:
    """Return the metric that ranks the runs: the first one in the order of columns that any of them has.

    The validation loss ranks runs without other metrics if all have the same loss.
    """
    measures = [metric for metric in COLUMNS if metric.is_measured]
    candidates = [*measures, *([METRICS[LOSS]] if share_loss(facts) else [])]
    return next((metric for metric in candidates if any(each.final[metric.key] is not None for each in facts)), None)


def winners(facts: Sequence[RunFacts], metric: Metric) -> list[RunFacts]:
    """Return the runs with the best value of the metric; values are equal if their texts are."""
    known = [(each, value) for each in facts if (value := each.final[metric.key]) is not None]
    if not known:
        return []
    best = metric.text(metric.best([value for _, value in known]))
    return [each for each, value in known if metric.text(value) == best]


def share_loss(facts: Sequence[RunFacts]) -> bool:
    """Return whether all runs have the same unit of loss, so that losses can be compared; models' own losses cannot."""
    return len({each.loss_unit for each in facts}) == 1


def marked(facts: Sequence[RunFacts], metric: Metric, comparable: bool) -> list[RunFacts]:
    """Return the runs to mark as best by the metric.

    None are marked if there is only one run, if all are equal, if the datasets differ, or if neither direction is better, as for
    losses of different units.
    """
    ranks = metric.better is not None or (metric.key.endswith("loss") and share_loss(facts))
    if not ranks or (not comparable and metric in SCORES):
        return []
    best = winners(facts, metric)
    return best if len(best) < len(facts) else []


def headline(facts: Sequence[RunFacts], comparable: bool) -> str:
    """Return one sentence: the best run, its score and training time, or why the runs are not ranked."""
    metric = deciding_metric(facts)
    if metric is None and any(each.final[LOSS] is not None for each in facts):
        return (
            "These runs have no metric in common but their losses, which are in different units; none is ranked first."
        )
    if metric is None:
        return "No run has been validated yet, so there is nothing to rank."
    if not comparable:
        return "These runs were trained over different datasets, so none of them is ranked first."
    best = winners(facts, metric)
    score = f"{metric.title} {metric.text(best[0].final[metric.key])}"
    if len(facts) == 1:
        return f"{best[0].label} reached {score}{_cost(best[0])}."
    if len(best) == 1:
        return f"{best[0].label} did best: {score}{_cost(best[0])}{_beside(best[0], facts)}."
    if len(best) == len(facts):
        return f"All runs are equal at {score}; {_quickest(best)}."
    named = [each.label for each in best]
    if len(named) > MOST_NAMED:
        named[MOST_NAMED - 1 :] = [f"{len(named) - MOST_NAMED + 1} others"]
    return f"{listed(named)} did best, equal at {score}; of them, {_quickest(best)}."


def _cost(facts: RunFacts) -> str:
    seconds = facts.final["train_seconds"]
    epochs = f"{facts.epoch:g} epoch{'' if facts.epoch == 1 else 's'}"
    return f" after {epochs}" + (f" and {duration(seconds)} of training" if seconds is not None else "")


def _beside(best: RunFacts, facts: Sequence[RunFacts]) -> str:
    """Return the best run's training time in relation to that of the quickest run."""
    seconds = best.final["train_seconds"]
    timed = [(value, each.label) for each in facts if each is not best and (value := each.final["train_seconds"])]
    if not seconds or not timed:
        return ""
    quickest, label = min(timed)
    if seconds <= quickest:
        return ", and was the quickest too" if len(facts) > 2 else f", and was quicker than {label}"
    times = seconds / quickest
    if times < 1.05:
        return f", about as long as {label}"
    return f", {times:.1f} times as long as {label}, the quickest".replace(".0 times", " times")


def _quickest(facts: Sequence[RunFacts]) -> str:
    timed = [(seconds, each.label) for each in facts if (seconds := each.final["train_seconds"]) is not None]
    if not timed:
        return "their training times are not known"
    seconds, label = min(timed)
    return f"{label} was quickest, with {duration(seconds)} of training"
