"""The report as one HTML page that holds all it shows."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from complexity.labels import PICTURES
from router.artifact import Artifact
from router.html import image, opening, table
from router.report import Decided, Rate, Report
from router.tables import as_text


def page(artifact: Artifact, reports: dict[str, Report], figures: dict[str, bytes], labels: Path, command: str) -> str:
    """The page of an artifact.

    Args:
        reports: by name of the rows; "test" is shown in full.
        figures: PNGs by file name.
        labels: the label table; its folder's pictures are shown where they were kept.
        command: what made it.
    """
    test = reports["test"]
    parts = [
        opening(f"Router for {artifact.model}"),
        f"<h1>Router for {escape(artifact.model)}</h1>",
        f"<p>{escape(_sentence(artifact, test))}</p>",
        f"<p class=note>Made by <code>{escape(command)}</code> at {artifact.created_at}; labels "
        f"{artifact.labels_sha256[:16]}, sweep {escape(artifact.sweep_version)}, features "
        f"{escape(artifact.feature_version)}.</p>",
        image(figures["accuracy.png"], "Accuracy over mean visual tokens"),
        "<p class=note>Lines: every price; dots: the prices set on the calibration rows. The lookup is told each "
        "sample's task, which live traffic doesn't say. The oracle picks the best of several tries, so part of its "
        "lead is luck; the informed bound is a predictor that is given what only the samples' maker knows.</p>",
        "<h2>Policies</h2>",
        _policies(test, artifact),
        "<h2>At equal mean tokens</h2>",
        _equal(test),
        "<h2>Gaps closed, flips</h2>",
        _summary(test),
        "<h2>Certificate</h2>",
        f"<p>{escape(certificate_sentence(artifact))}</p><p class=note>{escape(artifact.certificate.conditions)}</p>",
    ]
    if "cost.png" in figures:
        parts += ["<h2>Against measured cost</h2>", image(figures["cost.png"], "Accuracy over mean cost")]
    parts += [
        "<h2>Within each task</h2>",
        image(figures["families.png"], "Gain within each task"),
        _families(test),
        "<h2>Can its probabilities be trusted?</h2>",
        image(figures["reliability.png"], "Reliability per scale"),
        "<h2>What decides</h2>",
        image(figures["features.png"], "Feature importance"),
        "<h2>The ten worst decisions</h2>",
        "<p class=note>The finest scale answers right, the chosen one doesn't, and the router was surest of it.</p>",
        _worst(test.worst, artifact, labels),
    ]
    for name, report in reports.items():
        if name != "test":
            parts += [f"<h2>On the {escape(name)} rows</h2>", f"<pre>{escape(as_text(report))}</pre>"]
    return "\n".join(parts) + "\n"


def certificate_sentence(artifact: Artifact) -> str:
    """The certificate in words."""
    own = artifact.certificate
    if own.empty:
        return (
            f"Nothing could be certified at {own.alpha:.2%} with {own.rows} rows: the router always takes the finest "
            "scale."
        )
    return (
        f"With {own.confidence:.0%} confidence at most {own.alpha:.2%} of the answers are spoilt by routing (right at "
        f"the finest scale, wrong at the chosen one): {own.flips} of {own.rows} certificate rows were."
    )


def _sentence(artifact: Artifact, report: Report) -> str:
    ours = next(row for row in report.policies if row.name == "router")
    finest = next(row for row in report.policies if row.name == f"fixed-{artifact.ladder[-1]}")
    return (
        f"{ours.accuracy:.1%} right at {ours.tokens:.1f} mean visual tokens, where always {artifact.ladder[-1]} tokens "
        f"gives {finest.accuracy:.1%}; set for {artifact.target}."
    )


def _policies(report: Report, artifact: Artifact) -> str:
    costly = artifact.cost_unit != "tokens"
    rows = [
        [
            row.name,
            f"{row.accuracy:.1%}",
            f"{row.accuracy_ci[0]:.1%} to {row.accuracy_ci[1]:.1%}",
            f"{row.tokens:.1f}",
            *([f"{row.cost:.3g}"] if costly else []),
        ]
        for row in report.policies
    ]
    head = ["policy", "right", "95% interval", "mean tokens", *([f"mean cost, {artifact.cost_unit}"] if costly else [])]
    return table(head, rows, lambda row: row[0] == "router")


def _equal(report: Report) -> str:
    rows = [
        [
            f"{lead.tokens:g}",
            f"{lead.accuracy:.1%}",
            f"{lead.other_accuracy:.1%}",
            f"{100 * lead.gain:+.1f}",
            f"{100 * lead.gain_ci[0]:+.1f} to {100 * lead.gain_ci[1]:+.1f}",
        ]
        for lead in report.equal_tokens
    ]
    return table(["mean tokens", "router", "lookup", "gain, points", "95% interval"], rows)


def _summary(report: Report) -> str:
    def shown(name: str, rate: Rate) -> list[str]:
        ends = f"{100 * rate.ci[0]:.1f} to {100 * rate.ci[1]:.1f}"
        return [name.replace("_", " "), f"{100 * rate.value:.1f}", ends]

    rows = [shown(name, rate) for name, rate in report.summary.items()]
    return table(["", "points or %", "95% interval"], rows)


def _families(report: Report) -> str:
    rows = [
        [
            each.task,
            f"{each.pairs}",
            f"{each.finest:.1%}",
            f"{each.accuracy:.1%}",
            f"{each.tokens:.1f}",
            f"{100 * each.gain.value:+.1f}",
            f"{100 * each.gain.ci[0]:+.1f} to {100 * each.gain.ci[1]:+.1f}",
        ]
        for each in sorted(report.families, key=lambda each: -each.gain.value)
    ]
    return table(["task", "pairs", "finest", "router", "mean tokens", "gain, points", "95% interval"], rows)


def _worst(worst: Sequence[Decided], artifact: Artifact, labels: Path) -> str:
    shown = []
    for each in worst:
        kept = labels / PICTURES / f"{each.image_sha256}.png"
        picture = image(kept.read_bytes(), each.sample_id) if kept.is_file() else f"<p>{escape(each.sample_id)}</p>"
        chances = ", ".join(f"{t}: {p:.0%}" for t, p in zip(artifact.ladder, each.probabilities, strict=True))
        caption = f"{each.question} ({each.task}) got {each.tokens} tokens; {chances}"
        shown.append(f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>")
    return f"<div class=worst>{''.join(shown)}</div>"
