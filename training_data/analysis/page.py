"""An analysis as one HTML page that holds all it shows."""

from collections.abc import Mapping, Sequence
from html import escape

from complexity.labels import LabelMeta
from router.html import image, opening, table
from router.report import Rate, budgets
from training_data.analysis.analysis import RIGHT, DataSet, Group
from training_data.analysis.gallery import Gallery, Shown
from training_data.analysis.sample_complexity import Complexity
from training_data.analysis.score_table import Mean, ScoredSet
from training_data.analysis.text import allowed, in_words, percent, points, recommendation, scores_verdict, verdict

STYLE = """
.strip { display: flex; gap: .6rem; overflow-x: auto; margin: 1rem 0 } .strip figure { margin: 0; flex: 0 0 5.6rem }
.strip img { width: 5.6rem; height: 5.6rem; object-fit: contain }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1.2rem }
.samples figure { margin: 0 } .samples img { width: 192px }
.said { list-style: none; padding: 0; margin: .3rem 0 } .said li { display: flex; gap: .5rem; padding: .1rem .4rem;
  margin: .15rem 0; border-radius: 4px } .said b { min-width: 2.6rem; text-align: right; font-weight: 400 }
.said span { min-width: 0; overflow-wrap: anywhere }
.right { background: var(--good-paper); color: var(--good) } .wrong { background: var(--bad-paper); color: var(--bad) }
.verdict { font-weight: 600 }
"""


def page(
    found: Sequence[DataSet],
    complexities: Mapping[str, Complexity],
    galleries: Mapping[str, Gallery],
    figures: Mapping[str, Mapping[str, bytes]],
    meta: LabelMeta,
    command: str,
) -> str:
    """The page of a label table's analysis.

    Args:
        complexities, galleries: by data set.
        figures: PNGs by data set and kind: scales, needed, complexity (where there are correlations).
        command: what made it.
    """
    parts = [
        opening(f"Scales of {meta.model}", STYLE),
        f"<h1>What the scales of {escape(meta.model)} are worth</h1>",
        f"<p class=note>Made by <code>{escape(command)}</code>; sweep {escape(meta.sweep_version)}. "
        "Intervals are 95% bootstrap intervals over pictures.</p>",
        *(f"<p class=verdict>{escape(verdict(data))}</p>" for data in found),
        _overview(found),
    ]
    for data in found:
        name = data.whole.dataset
        parts += _data_set(data, complexities[name], galleries[name], figures[name])
    return "\n".join([*parts, _method(found)]) + "\n"


def _overview(found: Sequence[DataSet]) -> str:
    head = [
        "data set",
        "pairs",
        *(f"{scale.tokens}" for scale in found[0].whole.scales),
        "oracle",
        "its tokens",
        "its choices anew",
        "fixed scale to take",
    ]
    rows = []
    for data in found:
        own = data.whole
        oracle = own.oracle
        rows.append(
            [
                own.dataset,
                f"{own.pairs}",
                *(f"{100 * scale.score.value:.1f}" for scale in own.scales),
                f"{100 * oracle.score.value:.1f}",
                f"{oracle.tokens.value:.1f} or {oracle.tokens_finest.value:.1f}",
                f"{100 * own.luck.score.value:.1f}",
                f"{own.fixed.tokens}",
            ]
        )
    return table(head, rows)


def _data_set(data: DataSet, complexity: Complexity, gallery: Gallery, figures: Mapping[str, bytes]) -> list[str]:
    own = data.whole
    name = own.dataset
    return [
        f"<h2>{escape(name)}</h2>",
        f"<p>{own.pairs} questions about {own.pictures} pictures. {escape(recommendation(own))}</p>",
        image(figures["scales"], f"{name}: score over tokens"),
        _scales(own),
        _oracle(own),
        "<h3>Who needs how much</h3>",
        image(figures["needed"], f"{name}: share of samples by fewest tokens that answer right"),
        f"<p>Right at a coarser scale and wrong at the finest: {escape(percent(own.finer_hurts))}. "
        f"Right at none: {100 * own.needed[-1]:.1f}%.</p>",
        "<h3>By task</h3>",
        _tasks(data),
        "<h3>What choosing is worth</h3>",
        _headroom(data),
        "<h3>How complex are its pictures?</h3>",
        *_complexity(name, complexity, gallery, figures),
        "<h3>Answers at every scale</h3>",
        "<p class=note>Drawn at random, of different tasks as far as there are.</p>",
        *_samples(gallery, [scale.tokens for scale in own.scales]),
    ]


def _scales(own: Group) -> str:
    rows = [
        [f"{s.tokens}", f"{s.visual_tokens:.1f}", percent(s.score), points(s.loss) if s is not own.scales[-1] else ""]
        for s in own.scales
    ]
    head = ["tokens per grid", "visual tokens seen", "score", "lost against the finest"]
    return table(head, rows, lambda row: row[0] == str(own.fixed.tokens))


def _oracle(own: Group) -> str:
    oracle, luck = own.oracle, own.luck
    coarsest, finest = own.scales[0].tokens, own.scales[-1].tokens
    both = luck.method == "second rendering"
    soft = abs(oracle.best.value - oracle.score.value) > 1e-9
    rows = [
        ["its score", percent(oracle.score)],
        *([["the same, unsolved taking the finest", percent(oracle.score_finest)]] if soft else []),
        *([["best score of any scale", percent(oracle.best)]] if soft else []),
        [f"its tokens, unsolved charged {coarsest} (M3's authors)", _number(oracle.tokens)],
        [f"its tokens, unsolved charged {finest} (CARES)", _number(oracle.tokens_finest)],
        ["its tokens, solved samples only", "" if oracle.tokens_solved is None else f"{oracle.tokens_solved:.1f}"],
        [f"its choices judged anew ({luck.method})", percent(luck.score)],
        *([["luck's share of its right answers", percent(luck.lucky)]] if luck.lucky else []),
        *([["the same by the threshold model", percent(luck.lucky_by_model)]] if luck.lucky_by_model and both else []),
        [f"its lead over always {own.fixed.best} tokens", points(luck.lead)],
        ["the same, both judged anew", points(luck.lead_anew)],
    ]
    return table(["oracle", ""], rows)


def _tasks(data: DataSet) -> str:
    tokens = [f"{scale.tokens}" for scale in data.whole.scales]
    head = ["task", "pairs", *tokens, "oracle", "tokens", "anew", "luck", "finer hurts", "take", "by mean"]
    rows = [
        [
            group.task or "",
            f"{group.pairs}",
            *(f"{100 * scale.score.value:.0f}" for scale in group.scales),
            f"{100 * group.oracle.score.value:.0f}",
            f"{group.oracle.tokens.value:.0f} or {group.oracle.tokens_finest.value:.0f}",
            f"{100 * group.luck.score.value:.0f}",
            f"{100 * group.luck.lucky.value:.0f}%" if group.luck.lucky else "",
            f"{100 * group.finer_hurts.value:.0f}%",
            f"{group.fixed.tokens}",
            f"{group.fixed.by_mean}",
        ]
        for group in data.tasks
    ]
    return table(head, rows) + (
        "<p class=note>Scores in percent. Take: the scale that surely loses no more than allowed against the finest; "
        "by mean: the one that loses no more in these samples, by chance or not.</p>"
    )


def _headroom(data: DataSet) -> str:
    room = data.headroom
    first, *_, last = budgets([scale.tokens for scale in data.whole.scales])
    rows = [
        ["oracle, luck included", points(room.oracle)],
        ["who knows each answer's chance, judged anew", points(room.repeatable)],
        ["one scale per task", points(room.lookup)],
        ["who knows the chances, beyond one scale per task", points(room.beyond_lookup)],
    ]
    return table(["gain over the best mix of fixed scales", ""], rows) + (
        f"<p class=note>At equal mean tokens, averaged over {first:.3g} to {last:.3g}.</p>"
    )


def _complexity(name: str, complexity: Complexity, gallery: Gallery, figures: Mapping[str, bytes]) -> list[str]:
    if not complexity.pictures:
        return ["<p>No question is answered at any scale.</p>"]
    needs = [each.tokens for each in complexity.pictures]
    parts = [
        f"<p>A picture's need is the geometric mean of the fewest tokens that answer each of its questions right: from "
        f"{needs[0]:.2g} to {in_words(needs[-1])}, half of them below {needs[len(needs) // 2]:.2g}. "
        "Questions that no scale answers are left out.</p>"
    ]
    if gallery.strip:
        shown = "".join(
            f"<figure>{image(small.data, f'needs {need.tokens:.3g} tokens', small.kind)}"
            f"<figcaption>{in_words(need.tokens)}</figcaption></figure>"
            for need, small in gallery.strip
        )
        parts.append(f"<div class=strip>{shown}</div>")
    if "complexity" in figures:
        parts += [
            image(figures["complexity"], f"{name}: rank correlations of needed tokens with picture features"),
            "<p class=note>Features of <code>complexity/image_features.py</code>, the strongest as asked first. "
            "Within tasks: each question's need less its task's mean, so that it doesn't matter which questions were "
            "asked.</p>",
        ]
    else:
        parts.append("<p class=note>Too few pictures, or features of another version: no correlations.</p>")
    return parts


def _samples(gallery: Gallery, ladder: Sequence[int]) -> list[str]:
    parts = []
    for needed in (*ladder, None):
        own = [shown for shown in gallery.samples if shown.needed == needed]
        if own:
            said = "No scale is right" if needed is None else f"{in_words(needed)} will do"
            parts.append(f"<h4>{said}</h4><div class=samples>{''.join(_sample(shown, ladder) for shown in own)}</div>")
    return parts


def _sample(shown: Shown, ladder: Sequence[int]) -> str:
    picture = image(shown.picture.data, shown.question, shown.picture.kind) if shown.picture else ""
    said = []
    for tokens, prediction, score in zip(ladder, shown.predictions, shown.scores, strict=True):
        right = score >= RIGHT
        mark = "✓" if right else "✗"
        soft = "" if score in (0.0, 1.0) else f" ({score:.2f})"
        text = escape(prediction) or "<i>not kept</i>"
        said.append(f"<li class={'right' if right else 'wrong'}><b>{tokens}</b><span>{mark} {text}{soft}</span>")
    references = escape(" / ".join(shown.references))
    return (
        f"<figure>{picture}<div>{escape(shown.question)}</div><figcaption>{escape(shown.task)}; right: "
        f"{references}</figcaption><ul class=said>{''.join(said)}</ul></figure>"
    )


def _number(rate: Rate) -> str:
    return f"{rate.value:.1f} ({rate.ci[0]:.1f} to {rate.ci[1]:.1f})"


METHODS = {
    "second rendering": "Luck was told by a second rendering of the same pictures, moved by a pixel or two: the oracle "
    "chooses by the first and is judged by the second. Who knows the chances chooses by the model below, fitted to the "
    "first rendering, and is judged by the second. What a coarse scale averages away hardly moves with a pixel, so its "
    "guesses come out the same again: the model finds more luck there.",
    "threshold model": "Luck was told by the model below, since there was no second rendering: choices are judged by "
    "the chance that they come out right anew. The intervals leave out how sure the fit itself is.",
}


def _method(found: Sequence[DataSet]) -> str:
    methods = dict.fromkeys(data.whole.luck.method for data in found)
    said = [
        f"Right is a score of at least {RIGHT}. The oracle takes the fewest tokens that answer right, not the best of "
        "soft scores. Samples that are wrong at all scales are charged the coarsest scale, as M3's authors do, or the "
        "finest, as CARES does; both are told.",
        *(METHODS[method] for method in methods),
        "The model: within a task each sample needs some scale, or none will do; from there on it is right but for "
        "slips, below it wrong but for guesses, at rates fitted to how often each pattern of right and wrong occurs. "
        "A scale that harms for a reason counts as a slip. A guess that is right at many scales alike looks like "
        "skill, here as in a second rendering, so luck is rather under- than overestimated.",
        "The oracle's choices judged anew can earn less than a fixed scale: taking the fewest tokens that happened to "
        "be right collects the lucky guesses of coarse scales. What choosing is worth is told by who knows the "
        "chances.",
        "The fixed scale is the coarsest whose loss against the finest has an interval that ends within what is "
        "allowed; two made-up pictures, one lost and one won, stand beside the real ones there, so that few pictures "
        "without a loss don't pass for none: a point takes some 300.",
        "The scales per task are learnt on other pictures than they are judged on. The mix of fixed scales is the "
        "upper hull of their scores over tokens.",
    ]
    return "<h2>How this was reckoned</h2>" + "".join(f"<p>{escape(each)}</p>" for each in said)


def scores_page(
    sets: Sequence[ScoredSet], means: Sequence[Mean], figure: bytes, max_loss: float, source: str, command: str
) -> str:
    """The page of a table of scores."""
    head = ["data set", "take", "its score", "finest", "best scale", "oracle", "over best", "over finest"]
    head += ["tokens, unsolved charged coarsest", "solved only", "unsolved charged finest"]
    rows = []
    for own in sets:
        cells = [own.dataset, f"{own.tokens[own.recommended]:g}", f"{own.scores[own.recommended]:.2f}"]
        cells += [f"{own.scores[-1]:.2f}", f"{own.tokens[own.best]:g} ({own.scores[own.best]:.2f})"]
        if given := own.oracle:
            cells += [f"{given.score:.2f}", f"{given.over_best:+.2f}", f"{given.over_finest:+.2f}"]
            cells += [f"{given.tokens:.1f}", f"{given.tokens_solved:.1f}", f"{given.tokens_finest:.1f}"]
        rows.append(cells + [""] * (len(head) - len(cells)))
    parts = [
        opening(f"Scales in {source}", STYLE),
        f"<h1>What the scales in {escape(source)} are worth</h1>",
        f"<p class=note>Made by <code>{escape(command)}</code>.</p>",
        *(f"<p>{escape(scores_verdict(own))}</p>" for own in sets),
        table(head, rows),
        image(figure, "score over tokens of each data set"),
        "<p class=note>Squares: fixed scales; circle: the one to take; star and cross: the oracle, unsolved samples "
        "charged the coarsest and the finest scale.</p>",
        "<h2>Over all data sets</h2>",
        table(["choice", "mean tokens", "mean score"], [[m.name, f"{m.tokens:.1f}", f"{m.score:.2f}"] for m in means]),
        "<h2>How this was reckoned</h2>",
        f"<p>To take: the coarsest scale that loses at most {allowed(max_loss)} against the finest; mean scores "
        "alone have no intervals, so chance may have its part in it. The oracle's mean tokens were given with "
        "samples that no scale answers charged the coarsest scale; the others follow from its score, the share of "
        "solved samples, exactly where scores are 0 or 1 and roughly where they are soft. Luck can't be told from "
        "mean scores.</p>",
    ]
    return "\n".join(parts) + "\n"
