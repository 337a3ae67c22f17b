"""A report as tables for people and as JSON for machines."""

from typing import Any

from router.report import Report, budgets


def as_text(report: Report) -> str:
    """The report as tables for people."""
    lines = [
        f"{report.pairs} pairs of {report.pictures} pictures that nobody learnt from; 95% intervals by picture",
        f"{'policy':26}{'accuracy':>9}   {'interval':15}{'mean tokens':>12}",
    ]
    for row in report.policies:
        low, high = row.accuracy_ci
        lines.append(f"{row.name:26}{row.accuracy:9.4f}   {low:.4f}-{high:.4f}  {row.tokens:12.1f}")
    lines += ["", "at equal mean tokens", f"{'tokens':>8}{'router':>9}{'lookup':>9}{'gain':>9}   interval"]
    for lead in report.equal_tokens:
        low, high = lead.gain_ci
        figures = f"{lead.tokens:8.1f}{lead.accuracy:9.4f}{lead.other_accuracy:9.4f}{lead.gain:+9.4f}"
        lines.append(f"{figures}   {low:+.4f} to {high:+.4f}")
    first, *_, last = budgets(report.ladder)
    lines += ["", f"means over {first:g} to {last:g} mean tokens, and rates at the router's price"]
    for name, rate in report.summary.items():
        lines.append(f"{name:32}{rate.value:+9.4f}   {rate.ci[0]:+.4f} to {rate.ci[1]:+.4f}")
    return "\n".join(lines)


def as_json(report: Report) -> dict[str, Any]:
    """The report's figures, rounded, for machines."""
    at_1pt = report.tokens_at_1pt
    return {
        "pairs": report.pairs,
        "pictures": report.pictures,
        "policies": [
            {
                "name": row.name,
                "accuracy": round(row.accuracy, 5),
                "tokens": round(row.tokens, 2),
                "cost": round(row.cost, 4),
                "accuracy_ci": [round(end, 5) for end in row.accuracy_ci],
            }
            for row in report.policies
        ],
        "equal_tokens": [
            {
                "tokens": lead.tokens,
                "router": round(lead.accuracy, 5),
                "lookup": round(lead.other_accuracy, 5),
                "gain": round(lead.gain, 5),
                "gain_ci": [round(end, 5) for end in lead.gain_ci],
            }
            for lead in report.equal_tokens
        ],
        "calibration_error": round(report.calibration_error, 5),
        "calibration_error_per_scale": {
            str(tokens): round(error, 5) for tokens, (error, _) in zip(report.ladder, report.reliability, strict=True)
        },
        "tokens_at_1pt": None if at_1pt is None else round(at_1pt, 2),
        "tokens_share_at_1pt": None if at_1pt is None else round(at_1pt / report.ladder[-1], 4),
        **{name: round(rate.value, 5) for name, rate in report.summary.items()},
        **{f"{name}_ci": [round(end, 5) for end in rate.ci] for name, rate in report.summary.items()},
        "families": [
            {
                "task": each.task,
                "pairs": each.pairs,
                "finest": round(each.finest, 5),
                "accuracy": round(each.accuracy, 5),
                "tokens": round(each.tokens, 2),
                "gain": round(each.gain.value, 5),
                "gain_ci": [round(end, 5) for end in each.gain.ci],
            }
            for each in report.families
        ],
    }
