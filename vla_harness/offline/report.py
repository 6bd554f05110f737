"""What an offline evaluation leaves: offline.json, a plot for each trajectory, report.html."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .. import results
from ..printing import literal
from ..results.files import check_new_folder, explain_write_errors, new_file, write_text
from ..results.wording import plural, value_text
from .evaluation import Evaluation, Trajectory

REPORT = "offline.json"
_STYLE = Path(results.__file__).with_name("report.css")


def write_report(evaluation: Evaluation, config: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Write the report into the folder ``out`` and return offline.json's content. config: what was evaluated."""
    check_report_folder(out)
    with explain_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    names = evaluation.trajectories[0].names
    content = {
        "mse": evaluation.mse,
        "mse_per_dimension": dict(zip(names, evaluation.mse_per_dimension.tolist(), strict=True)),
        "trajectories": [
            {
                "episode": one.episode,
                "instruction": one.instruction,
                "steps": len(one.truth),
                "inferences": len(one.inference_rows),
                "mse": one.mse,
                "mse_per_dimension": dict(zip(names, one.mse_per_dimension.tolist(), strict=True)),
                "plot": plot_name(one),
            }
            for one in evaluation.trajectories
        ],
        "config": dict(config),
    }
    for one in evaluation.trajectories:
        plot_trajectory(one, out / plot_name(one))
    write_text(out / REPORT, json.dumps(content, indent=1))
    write_text(out / "report.html", render(content))
    return content


def check_report_folder(out: Path) -> None:
    """Raise UserError unless ``out`` is new, empty or the folder of an earlier report of this kind."""
    if not (out / REPORT).exists():
        check_new_folder(out)


def plot_name(trajectory: Trajectory) -> str:
    """Return the file name of the trajectory's plot."""
    return f"episode_{trajectory.episode:06d}.png"


def plot_trajectory(trajectory: Trajectory, path: Path) -> None:
    """Draw a panel for each dimension: state, recorded and predicted action, and a dot where the policy looked."""
    from matplotlib.figure import Figure

    count = len(trajectory.names)
    columns = 1 if count <= 4 else 2 if count <= 16 else 4
    rows = -(-count // columns)
    figure = Figure(figsize=(11, 1.5 * rows + 1.0), layout="constrained")
    figure.suptitle(
        f"episode {trajectory.episode}: {literal(trajectory.instruction)}\nMSE {trajectory.mse:.6g}", fontsize=10
    )
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    looked = list(trajectory.inference_rows)
    for i, axes in enumerate(grid.T.flat):
        axes.set_visible(i < count)
        if i >= count:
            continue
        if np.isfinite(trajectory.state[:, i]).all():
            axes.plot(trajectory.state[:, i], color="0.6", linewidth=1, label="state")
        axes.plot(trajectory.truth[:, i], color="tab:blue", linewidth=1.4, label="recorded action")
        axes.plot(trajectory.prediction[:, i], color="tab:orange", linewidth=1.2, label="predicted action")
        axes.plot(looked, trajectory.truth[looked, i], "o", color="tab:red", markersize=3, label="inference")
        axes.set_title(literal(trajectory.names[i]), fontsize=8, loc="left", pad=2)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        axes.margins(x=0.01)
    for axes in grid[-1]:
        axes.set_xlabel("step", fontsize=8)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    with new_file(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix[1:], dpi=100)


def render(content: Mapping[str, Any]) -> str:
    """Return the HTML page of offline.json's content; the plots lie beside it."""
    config = content["config"]
    title = f"Offline: {config['policy']} on {Path(config['dataset']).name}"
    head = (
        f"<header>\n<h1>{escape(title)}</h1>\n"
        f'<p class="rate"><span class="big">{content["mse"]:.6g}</span><span class="of">mean squared error<br>'
        f"mean over {plural(len(content['trajectories']), 'episode')}</span></p>\n"
        '<p class="note">Predicted against recorded actions in the dataset\'s units, from recorded observations: no'
        " success rate, and no feedback from the policy's own actions. Every trajectory weighs the same.</p>\n</header>"
    )
    dimensions = _table("Error per dimension", [(n, f"{v:.6g}") for n, v in content["mse_per_dimension"].items()])
    plots = "".join(
        f"<section>\n<h2>Episode {one['episode']}: {escape(one['instruction'])}</h2>\n"
        f'<p class="note">MSE {one["mse"]:.6g} over {plural(one["steps"], "step")},'
        f" {plural(one['inferences'], 'inference')}</p>\n"
        f'<img src="{escape(one["plot"])}" alt="actions over time" style="max-width:100%">\n</section>\n'
        for one in content["trajectories"]
    )
    rows = [(key.replace("_", " "), value_text(value)) for key, value in config.items()]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n"
        f"<body>\n<main>\n{head}\n{dimensions}\n{plots}{_table('What was evaluated', rows)}\n"
        "</main>\n</body>\n</html>\n"
    )


def _table(heading: str, rows: list[tuple[str, str]]) -> str:
    body = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>\n' for name, value in rows)
    return f'<section>\n<h2>{heading}</h2>\n<table class="pairs">{body}</table>\n</section>'
