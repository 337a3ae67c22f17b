"""The card that stands beside an artifact: what it is, what it was made from, how well it does."""

from router.artifact import FIGURE_FILE, Artifact
from router.feedback import in_words
from router.page import certificate_sentence
from router.report import Report
from router.tables import as_text


def write_card(artifact: Artifact, reports: dict[str, Report], command: str) -> str:
    """The card of an artifact as Markdown.

    Args:
        reports: by name of the rows they were measured on.
        command: what made the artifact.
    """
    lines = [
        f"# Router for {artifact.model}",
        "",
        f"Chooses how many visual tokens of {', '.join(map(str, artifact.ladder))} a picture and a question get.",
        "",
        f"- made by `{command}` at {artifact.created_at}, seed {artifact.seed}",
        f"- labels: sweep {artifact.sweep_version}, SHA-256 {artifact.labels_sha256}",
        *_feedback_line(artifact),
        f"- features: {artifact.feature_version}",
        f"- price: {artifact.price:.3g} of probability per unit of cost ({artifact.cost_unit}), set on the calibration "
        f"rows for {artifact.target}",
        f"- certificate: {certificate_sentence(artifact)} {artifact.certificate.conditions}",
        "",
        f"![accuracy over mean visual tokens]({FIGURE_FILE})",
    ]
    for name, report in reports.items():
        lines += ["", f"## On the {name} rows", "", "```", as_text(report), "```"]
    lines += [
        "",
        "- `lookup`: each task at the scale that the training rows say is worth the price; it is told the task.",
        "- `image-size`: the same by the picture's number of pixels.",
        "- `question`: this router's predictor without the picture.",
        "- `random-mixing`: the best fixed scales mixed at random to the router's mean tokens.",
        "- `oracle`: the fewest tokens that answer right, samples that no scale answers charged the coarsest or the",
        "  finest scale. Part of its lead is luck: the best of several tries.",
        "",
        "Predictions hold for pictures and questions like those it was trained on, and for this model alone.",
    ]
    return "\n".join(lines) + "\n"


def _feedback_line(artifact: Artifact) -> list[str]:
    told = artifact.metrics.get("feedback")
    if told is None:
        return []
    return [
        f"- feedback: {in_words(told)}, SHA-256 {told['sha256']}, taught the predictor beside the sweep; what it is "
        "compared with below learnt from the sweep alone. The labels' SHA-256 is of the feedback's and of the sweep's, "
        f"{told['swept_sha256']}"
    ]
