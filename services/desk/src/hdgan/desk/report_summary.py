"""What the page says first: is it good, can it be used, what needs a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hdgan.desk.report_scores import BASELINE_TITLES
from hdgan.desk.report_text import counted, interval, is_number, listed, number, percent
from hdgan.desk.report_training import ALARMING_COPIES

WEAK_DICE = 0.5
"""A class below it is named: more of its pixels are wrong than right."""

Context = Mapping[str, Any]


def verdict(
    outcome: str, message: str, reasons: Mapping[str, str], following: str, pairs: int | None
) -> tuple[str, str]:
    """One sentence and its kind (good, waiting, bad).

    reasons    by state of a stage or gate, of the first in that state
    following  the next stage; empty if none can start
    pairs      of the dataset; None if there is none
    """
    if outcome == "GateFailed":
        kept = "" if pairs is None else f" Its {pairs} pairs are not released."
        return f"A gate said no: {reasons.get('failed', '')}.{kept}", "bad"
    if pairs is not None:
        return f"The dataset is there: {counted(pairs, 'image + mask pair')}.", "good"
    if outcome == "AwaitingAnnotation":
        return f"Waiting for annotations: {reasons.get('awaiting', '')}.", "waiting"
    if outcome == "Failed":
        return f"The run failed. {message}".strip(), "bad"
    if following:
        return f"Unfinished: the next stage is {following}.", "waiting"
    return "Nothing of this run exists yet.", "waiting"


def is_it_good(context: Context, scores: Mapping[str, Any] | None) -> str:
    """What was measured, in a sentence or two."""
    if not scores:
        return "Not known yet: there is no classifier whose scores could tell."
    test = scores.get("test", {})
    dice = test.get("dice", {})
    text = f"Macro Dice {number(dice.get('macro'))}"
    between = interval(dice.get("macroInterval95"))
    text += f" (95 %: {between})" if between else ""
    text += f" on {test.get('images')} generated test images"
    rival = best_baseline(scores)
    text += f"; the best baseline, {rival[0]}, gives {number(rival[1])}." if rival else "."
    classes = {str(n): v for n, v in dice.get("perClass", {}).items() if is_number(v)}
    if classes:
        weakest = min(classes, key=lambda name: float(classes[name]))
        text += f" Weakest class: {weakest} with {number(classes[weakest])}."
    return text + _against_release(context.get("comparison"))


def best_baseline(scores: Mapping[str, Any]) -> tuple[str, float] | None:
    """Name and macro Dice of the best of what the ensemble has to beat; None without any."""
    found = []
    for name, one in scores.get("baselines", {}).items():
        macro = one.get("test", {}).get("dice", {}).get("macro")
        if is_number(macro):
            found.append((float(macro), BASELINE_TITLES.get(name, name)))
    if not found:
        return None
    macro, title = max(found)
    return title, macro


def _against_release(comparison: Context | None) -> str:
    if not comparison or not comparison.get("rows"):
        return ""
    macro = next((row for row in comparison["rows"] if row.name.startswith("macro Dice")), None)
    if macro is None or not macro.verdict:
        return ""
    where = "the same" if comparison["same_test"] else "other"
    return (
        f" Release {comparison['release']} had {macro.before}: {macro.difference}, on {where} "
        "test images."
    )


def can_i_use_it(context: Context) -> str:
    """Whether there is a dataset and what it was let through by."""
    gates, dataset = context["gates"], context["dataset"]
    if dataset is None:
        return f"No: there is no dataset yet. {gates['standing'].words}"
    if gates["failed"]:
        return f"No: {listed(gates['failed'])} failed. {gates['standing'].words}"
    passed = len(gates["rows"]) - len(gates["open"])
    gate = (
        "No gate was set, so nothing but this page says that it is good enough."
        if not gates["rows"]
        else f"{counted(passed, 'gate is', 'gates are')} passed."
    )
    yes = "Yes" if gates["standing"].release else "Not yet"
    return f"{yes}. {gates['standing'].words} {gate}"


def needs_a_person(context: Context, scores: Mapping[str, Any] | None) -> list[str]:
    """What somebody should look at, the most urgent first; empty if nothing does."""
    found = []
    if context["verdict_kind"] == "bad":
        found.append(context["verdict"])
    if context["outcome"] == "AwaitingAnnotation":
        found.append(
            "Label the candidates: hdgan annotations export RUN DIR writes them, "
            "hdgan annotations import RUN PATH... brings the labels back."
        )
    labels, tiles, training = context["labels"], context["tiles"], context["training"]
    if labels and labels.get("unverified"):
        found.append(
            f"{counted(labels['unverified'], 'mask')} matched by the name of the file alone: "
            "compare them with their images below."
        )
    if tiles and tiles["aside_count"]:
        found.append(f"{counted(tiles['aside_count'], 'slide')} set aside, with reasons below.")
    if tiles and tiles["without_tiles"]:
        found.append(f"{counted(tiles['without_tiles'], 'slide')} gave no tile at all.")
    if training and training["lost"]:
        lost = counted(training["lost"], "value that is no number", "values that are no numbers")
        found.append(f"The training log has {lost}: the training may have diverged.")
    if training and training["copies"] is not None and training["copies"] > ALARMING_COPIES:
        found.append(
            f"{percent(training['copies'])} of the samples are near copies of training tiles "
            "(about 1 % without copying): look at them before the dataset leaves the house."
        )
    if scores:
        dice = scores.get("test", {}).get("dice", {}).get("perClass", {})
        macro = scores.get("test", {}).get("dice", {}).get("macro")
        rival = best_baseline(scores)
        if rival and is_number(macro) and macro < rival[1]:
            found.append(
                f"The baseline {rival[0]} does better ({number(rival[1])}) than the classifier "
                f"({number(macro)}): features of the generator do not help here."
            )
        weak = [str(n) for n, value in dice.items() if is_number(value) and value < WEAK_DICE]
        if weak:
            found.append(f"Dice below {WEAK_DICE:g}: {listed(weak)}. Label more of it.")
        absent = [str(one) for one in scores.get("test", {}).get("leftOut", [])]
        if absent:
            found.append(f"Not in the test images, so never measured: {listed(absent)}.")
    if context["trail"] is not None and not context["trail"].whole:
        found.append("A link of the lineage does not hold: see below.")
    return found
