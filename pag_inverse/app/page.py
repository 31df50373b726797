"""The layout of the page, in the order of the work: picture, degradation, solver, result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from pag_inverse.app.choices import MOST_SAMPLES, PRIORS, SIZES, estimated, solver_choices, task_choices, task_sigma
from pag_inverse.app.uploads import Limits
from pag_inverse.data.images import BUNDLED
from pag_inverse.settings import AUTO, SPEEDS

TITLE = "pag_inverse: restore a picture"
FIRST_TASK, FIRST_PICTURE, FIRST_SIZE = "gaussian_deblur", "astronaut", 256
DEGRADE, OWN = "degrade", "own"
WHOLE = "whole"
PAINT = "#e6007e"
CSS = """
.gradio-container { max-width: 1180px !important; margin: auto !important; }
#status progress { width: 100%; height: 1.1em; accent-color: #2563eb; }
#status .error, #status .clear-status { display: none; }
#live img, #preview img { image-rendering: pixelated; }
footer { display: none !important; }
"""


@dataclass(frozen=True)
class Given:
    """The components that a visitor fills in."""

    upload: gr.File
    bundled: gr.Radio
    own: gr.Radio
    task: gr.Dropdown
    size: gr.Radio
    painted: gr.ImageEditor
    mask: gr.File
    mask_convention: gr.Radio
    remove_colour: gr.Textbox
    kernel: gr.File
    sigma: gr.Textbox
    peak: gr.Textbox
    prior: gr.Radio
    solver: gr.Dropdown
    pag: gr.Textbox
    samples: gr.Slider
    speed: gr.Radio
    steps: gr.Textbox
    seed: gr.Textbox
    explain: gr.Checkbox


@dataclass(frozen=True)
class Shown:
    """The components that show a result."""

    status: gr.HTML
    live: gr.Image
    compare: gr.ImageSlider
    text: gr.Markdown
    uncertainty: gr.Column
    deviation: gr.Image
    deviation_text: gr.Markdown
    more: gr.Accordion
    comparison: gr.Image
    residual: gr.Image
    explanation: gr.Image
    command: gr.Code
    download: gr.DownloadButton


def theme() -> gr.themes.Base:
    """Plain, with fonts of the visitor's machine."""
    sans = [gr.themes.Font(name) for name in ("system-ui", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("ui-monospace", "monospace")]
    return gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=sans, font_mono=mono)


def picture_section(limits: Limits) -> tuple[gr.File, gr.Radio, gr.Image]:
    """1: an upload, or a bundled photograph, and its preview."""
    gr.Markdown("## 1 Picture")
    label = f"Upload: a picture or .npy, {limits.max_upload:g} MB at most"
    upload = gr.File(label=label, type="filepath", height=140, elem_id="upload")
    bundled = gr.Radio(list(BUNDLED), value=FIRST_PICTURE, label="or a bundled photograph", elem_id="bundled")
    preview = gr.Image(label="The picture", interactive=False, height=256, buttons=[], elem_id="preview")
    return upload, bundled, preview


def degradation_section() -> dict[str, Any]:
    """2: what is wrong with the picture, and what is known of it."""
    gr.Markdown("## 2 Degradation")
    own = gr.Radio(
        [("is good: degrade it here, to try", DEGRADE), ("is degraded: restore it as it is", OWN)],
        value=DEGRADE,
        label="The picture",
        elem_id="own",
    )
    task = gr.Dropdown(task_choices(False), value=FIRST_TASK, label="What is wrong with it", elem_id="task")
    sizes = [(f"{side} px square", str(side)) for side in SIZES]
    size = gr.Radio(
        [*sizes, ("whole picture (slow)", WHOLE)], value=str(FIRST_SIZE), label="Size to work at", elem_id="size"
    )
    painted = gr.ImageEditor(
        label="Paint over what is missing",
        type="numpy",
        sources=(),
        transforms=(),
        layers=False,
        format="png",
        brush=gr.Brush(default_size=12, colors=[PAINT], default_color=PAINT, color_mode="fixed"),
        buttons=[],
        visible=False,
        elem_id="painted",
    )
    mask = optional_file("or a mask, black and white", "mask")
    conventions = [("is measured", "white-measured"), ("is missing", "white-missing")]
    convention = gr.Radio(
        conventions, value="white-measured", label="White in the mask", visible=False, elem_id="mask_convention"
    )
    colour = optional_text(
        "or the colour of what is missing", "#RRGGBB or R,G,B. 2 px around it are missing, too.", "remove_colour"
    )
    kernel = optional_file("Kernel: .npy or grey picture, odd sides", "kernel")
    sigma = optional_number("Noise: sigma on the [-1, 1] range", simulated_sigma(FIRST_TASK), "sigma")
    peak = optional_number("Noise: photons at white", "Empty: the task's.", "peak", visible=False)
    found = {"own": own, "task": task, "size": size, "painted": painted, "mask": mask, "kernel": kernel}
    return {**found, "mask_convention": convention, "remove_colour": colour, "sigma": sigma, "peak": peak}


def optional_file(label: str, name: str) -> gr.File:
    """An upload that is shown where a task asks for it."""
    return gr.File(label=label, type="filepath", height=140, visible=False, elem_id=name)


def optional_text(label: str, info: str, name: str) -> gr.Textbox:
    """A text that is shown where a task asks for it."""
    return gr.Textbox(label=label, info=info, max_lines=1, visible=False, elem_id=name)


def optional_number(label: str, info: str, name: str, *, visible: bool = True) -> gr.Textbox:
    """A number that may be left out: gradio's own component for numbers shows 0 where there is none."""
    return gr.Textbox(label=label, info=info, placeholder="auto", max_lines=1, visible=visible, elem_id=name)


def simulated_sigma(task: str) -> str:
    """What the field of sigma says of a picture that is degraded here."""
    return f"0.05 is 6.4 of 255 levels. Empty: the task's, {task_sigma(task):g}."


def measured_sigma(task: str) -> str:
    """What the field of sigma says of a measurement."""
    if not estimated(task):
        return "The task has no noise of this kind: leave it empty."
    return "0.05 is 6.4 of 255 levels. Empty: estimated from the picture."


def solver_section() -> dict[str, Any]:
    """3: how it is restored."""
    gr.Markdown("## 3 Solver")
    with gr.Row():
        prior = gr.Radio(list(PRIORS), value=PRIORS[0], label="Prior (embedded)", elem_id="prior")
        solver = gr.Dropdown(
            solver_choices(FIRST_TASK, PRIORS[0]), value=AUTO, label="Solver", info="auto: the task's", elem_id="solver"
        )
    with gr.Row():
        pag = optional_number("PAG scale s", "Empty: the table's. 0: none.", "pag")
        samples = gr.Slider(
            1,
            MOST_SAMPLES,
            value=1,
            step=1,
            label="Samples",
            info="2 or more: a map of uncertainty",
            buttons=[],
            elem_id="samples",
        )
    with gr.Accordion("Speed, steps and seed", open=False, elem_id="speed"):
        speed = gr.Radio(list(SPEEDS), value=SPEEDS[0], label="Speed", info="fast and draft take fewer steps")
        with gr.Row():
            steps = optional_number("Steps", "Empty: the table's.", "steps")
            seed = optional_number("Seed", "Of the noise and samples. Empty: 0.", "seed")
        explain = gr.Checkbox(label="Show what guidance does at each step", elem_id="explain")
    found = {"prior": prior, "solver": solver, "pag": pag, "samples": samples}
    return {**found, "speed": speed, "steps": steps, "seed": seed, "explain": explain}


def result_section() -> Shown:
    """4: the restoration as it appears, then everything about it."""
    status = gr.HTML("Choose, then press Restore.", elem_id="status", padding=True)
    live = gr.Image(
        label="The restoration so far", interactive=False, height=320, buttons=[], format="png", elem_id="live"
    )
    compare = gr.ImageSlider(
        label="Left: measurement. Right: restoration.", visible=False, format="png", max_height=512, elem_id="compare"
    )
    text = gr.Markdown(elem_id="text")
    with gr.Column(visible=False, elem_id="uncertainty") as uncertainty:
        gr.Markdown("### Uncertainty")
        deviation = gr.Image(
            show_label=False, interactive=False, format="png", height=280, buttons=["fullscreen"], elem_id="deviation"
        )
        deviation_text = gr.Markdown()
    download = gr.DownloadButton("Download everything (zip)", visible=False, elem_id="download")
    with gr.Accordion("Side by side, residual, command line", open=False, visible=False) as more:
        comparison = gr.Image(show_label=False, interactive=False, format="png", buttons=["fullscreen"])
        residual = gr.Image(show_label=False, interactive=False, format="png", buttons=[])
        explanation = gr.Image(
            label="What guidance does",
            interactive=False,
            visible=False,
            format="png",
            buttons=["fullscreen"],
            elem_id="explanation",
        )
        command = gr.Code(label="The same on the command line, in the folder of the download", language="shell")
    return Shown(
        status=status,
        live=live,
        compare=compare,
        text=text,
        uncertainty=uncertainty,
        deviation=deviation,
        deviation_text=deviation_text,
        more=more,
        comparison=comparison,
        residual=residual,
        explanation=explanation,
        command=command,
        download=download,
    )
