"""Formats comparisons for a terminal: a table, a verdict, and the examples that changed."""

from finetrail.comparison.pairs import Change, Compared
from finetrail.evaluation.significance import Difference, Settings, holm

EXCERPT = 100  # characters of a text

# Of one comparison: metric -> p-value, corrected for the number of comparisons.
Corrected = dict[str, float]


def corrected(comparisons: list[Compared]) -> list[Corrected]:
    """Correct the p-values of each metric for the number of systems that are compared with the first (Holm 1979)."""
    names = [name for name in comparisons[0].scores if all(name in one.scores for one in comparisons)]
    by_name = {name: holm([one.scores[name].p for one in comparisons]) for name in names}
    return [{name: values[index] for name, values in by_name.items()} for index in range(len(comparisons))]


def corrected_slices(comparisons: list[Compared]) -> list[list[float]]:
    """Return the p-values of each comparison's slices, corrected for the number of all of them (Holm 1979)."""
    values = iter(holm([one.score.p for found in comparisons for one in found.slices]))
    return [[next(values) for _ in found.slices] for found in comparisons]


def table(found: Compared, p_values: Corrected) -> str:
    """Return all metrics as a Markdown table, the headline first."""
    rows = [
        f"| metric | {found.first} | {found.second} | difference | interval | p | detectable |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in headline_first(found).items():
        scores = f"{one.first:.4f} | {one.second:.4f} | {one.difference:+.4f} | {one.low:+.4f} to {one.high:+.4f}"
        rows.append(f"| {name} | {scores} | {p_words(p_values.get(name, one.p))} | {detectable(one)} |")
    return "\n".join(rows)


def slices(found: Compared, p_values: list[float], settings: Settings) -> str:
    """Return the headline in each slice as a Markdown table, marking slices that differ by more than chance.

    Slices in which no example differs are only counted.
    """
    same = sum(is_same(part.score) for part in found.slices)
    if same == len(found.slices):
        return f"None of {same} slices differs."
    rows = [
        f"| slice | examples | {found.first} | {found.second} | difference | interval | p | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for part, p in zip(found.slices, p_values, strict=True):
        if is_same(part.score):
            continue
        one, name = part.score, f"{part.slicing}: {excerpt(part.slice).replace('|', '/')}"
        scores = f"{one.first:.4f} | {one.second:.4f} | {one.difference:+.4f} | {one.low:+.4f} to {one.high:+.4f}"
        kind = "" if is_noise(p, settings) else "better" if is_better(found, found.headline, one) else "worse"
        rows.append(f"| {name} | {part.examples:,} | {scores} | {p_words(p)} | {kind} |")
    return "\n".join([*rows, *([f"\n{same} more slices do not differ."] if same else [])])


def verdict(found: Compared, p_values: Corrected, settings: Settings) -> str:
    """Return in one sentence whether the headline's difference is noise, and the detectable difference."""
    one = found.scores[found.headline]
    p = p_values.get(found.headline, one.p)
    seeds = f", {len(found.seeds)} seeds" if found.seeds else ""
    text = (
        f"{found.second} against {found.first}: {one.difference:+.4f} {found.headline} "
        f"[{one.low:+.4f}, {one.high:+.4f}], p {p_words(p)}, {found.examples:,} examples{seeds}: "
    )
    if is_same(one):
        return f"{text}the same at every example."
    if is_noise(p, settings):
        return f"{text}noise. Such a test shows a difference of {one.detectable:.4f} in 80 of 100 cases."
    return f"{text}{'better' if is_better(found, found.headline, one) else 'worse'}, and not by chance alone."


def examples(found: Compared, most: int) -> str:
    """Return how many examples became worse and better, and the first of each."""
    losses = [change for change in found.changes if change.is_loss]
    gains = found.changes[len(losses) :]
    same = found.examples - len(found.changes)
    lines = [
        f"{len(losses):,} examples worse{_turned(losses)}, {len(gains):,} better{_turned(gains)}, {same:,} the same."
    ]
    for word, changes in (("worse", losses), ("better", gains)):
        for change in changes[:most]:
            lines += [
                f"  {word} {change.id}: {change.before:.3g} -> {change.after:.3g}: {excerpt(change.input)}",
                f"    expected {excerpt(change.reference) or '(nothing)'}",
                f"    {found.first}: {excerpt(change.first) or '(nothing)'}",
                f"    {found.second}: {excerpt(change.second) or '(nothing)'}",
            ]
    return "\n".join(lines)


def headline_first(found: Compared) -> dict[str, Difference]:
    """Return the scores by metric, with the headline before the others."""
    return {found.headline: found.scores[found.headline]} | found.scores


def is_same(one: Difference) -> bool:
    """Return True if both systems have the same score at every example."""
    return one.low == one.high == one.difference == 0


def detectable(one: Difference) -> str:
    """Return the detectable difference; it is unknown if no example differs."""
    return "" if is_same(one) else f"{one.detectable:.4f}"


def is_noise(p: float, settings: Settings) -> bool:
    """Return True if the p-value exceeds the significance level, 1 - confidence."""
    return p > 1 - settings.confidence


def is_better(found: Compared, metric: str, one: Difference) -> bool:
    """Return True if the second system has the better score, of all examples or of a slice."""
    return (one.difference > 0) != (metric in found.lower_is_better)


def p_words(p: float) -> str:
    """Format a p-value with two digits; values below 0.001 are not distinguished."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def excerpt(text: str) -> str:
    """Return the beginning of a text on one line, without control characters of terminals."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"


def _turned(changes: list[Change]) -> str:
    """Return how many of the changes are between right (1) and wrong (0); "" if none is."""
    turned = sum({change.before, change.after} == {0.0, 1.0} for change in changes)
    way = "from right to wrong" if changes and changes[0].is_loss else "from wrong to right"
    return f" ({turned:,} {way})" if turned else ""
