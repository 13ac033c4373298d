"""`swath evaluate`: how good are a model's features, beside baselines that cost nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from swath.cli.evaluate import audit as evaluate_looks
from swath.cli.evaluate import report as evaluate_report
from swath.cli.evaluate import retrieval
from swath.cli.evaluate import split as evaluate_split
from swath.cli.evaluate import suite as evaluate_suite
from swath.cli.evaluate.options import EvalOptions, with_eval_options
from swath.cli.evaluate.run import check_protocol, run_protocol

__all__ = ["app"]

app = typer.Typer(
    help="Score a model's frozen features on labeled images, with intervals and baselines beside them.\n\n"
    "A score without its protocol says little, and without baselines nothing. So every run states both, and "
    "writes files that say how to make the figures again. Features are computed once: another protocol on "
    "the same model and images finds them in the cache, and a killed run goes on where it was.",
    no_args_is_help=True,
)


@app.command("knn")
@with_eval_options()
def knn(
    options: EvalOptions,
    asymmetric: Annotated[
        bool,
        typer.Option(
            "--asymmetric/--symmetric-only", help="Also: queries reduced, bank at the largest scale."
        ),
    ] = True,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="scale_mae: exactly what Scale-MAE's released evaluation does: class token, bank and "
            "queries at one scale, the model told 224 / side, bands standardized by the data's own "
            "statistics, k = 20, T = 0.07, features as they are."
        ),
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="Neighbors that vote.", min=1)] = 20,
    temperature: Annotated[
        float, typer.Option(help="A vote weighs exp(cosine / temperature).", min=1e-3)
    ] = 0.07,
) -> None:
    """Classify by the nearest neighbors, at several image scales.

    Every image of the queries is classified by a vote of its k most similar images of the bank. Nothing is
    trained, so the score speaks of the features alone. "knn-standardized" is the same on features
    standardized by the bank. Several models are compared in pairs, on the same images.

    Example: swath evaluate knn runs/first/model scenes/index.csv --image-sizes 16,32,64,128 -o scores
    """
    from swath.evaluation.protocols.frozen import evaluate_knn

    if protocol is not None:
        check_protocol(protocol, options, k=k, temperature=temperature)
    run_protocol(
        evaluate_knn, options, protocol=protocol, asymmetric=asymmetric, k=k, temperature=temperature
    )


@app.command("linear")
@with_eval_options()
def linear(
    options: EvalOptions,
    c: Annotated[
        float | None,
        typer.Option(
            "--c",
            help="Inverse strength of the L2 penalty, fixed beforehand.  \\[default: chosen on a fifth of "
            "the bank, never on the queries]",
            min=1e-8,
        ),
    ] = None,
) -> None:
    """Classify by logistic regression on the features (linear probe).

    A convex problem solved to the end: no learning rate, no epochs, no luck. Features are standardized by the
    bank's statistics. The penalty is chosen on images held out of the bank (of each class, groups of the same
    ground whole).

    Example: swath evaluate linear runs/first/model scenes/index.csv --image-sizes 128 -o scores
    """
    from swath.evaluation.protocols.frozen import evaluate_linear

    run_protocol(evaluate_linear, options, c=c)


@app.command("fewshot")
@with_eval_options()
def fewshot(
    options: EvalOptions,
    shots: Annotated[
        str | None,
        typer.Option(
            help="Labeled images a class, such as 1,5,20.  \\[default: 1,2,5,10,20,50,100, as far as every "
            "class has as many]"
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(help="How often images are drawn, for each number.", min=1)] = 10,
    classifier: Annotated[
        str, typer.Option(help="centroid (nearest class mean), linear, or both with a comma between.")
    ] = "centroid,linear",
    c: Annotated[
        float, typer.Option("--c", help="linear: inverse strength of the L2 penalty.", min=1e-8)
    ] = 0.1,
) -> None:
    """Classify after n labeled images of each class, for rising n.

    Several draws of n images a class are taken from the bank; all models see the same ones. The interval
    covers both the draws and the queries. With --out, a curve is drawn.

    Example: swath evaluate fewshot runs/first/model scenes/index.csv --shots 1,5,20 -o scores
    """
    from swath.cli.evaluate.run import numbers
    from swath.evaluation.protocols.fewshot import evaluate_fewshot

    requested = numbers(shots, "--shots are labeled images a class", "1,5,20")
    kinds = [kind.strip() for kind in classifier.split(",")]
    run_protocol(
        evaluate_fewshot, options, shots=requested, repeats=repeats, classifiers=kinds, c=c, seed=options.seed
    )


app.command("retrieval")(retrieval.command)
app.command("suite")(evaluate_suite.command)
app.command("make-split")(evaluate_split.command)
app.command("leakage")(evaluate_looks.leakage)
app.command("embedding")(evaluate_looks.embedding)
app.command("robustness")(evaluate_looks.robustness)
app.command("report")(evaluate_report.command)
