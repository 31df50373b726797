"""What happens on the page: components are wired to the plain functions beside this file."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import gradio as gr

from pag_inverse.app import page
from pag_inverse.app.choices import (
    NUMBERS,
    Choices,
    Files,
    counts_photons,
    make_request,
    needs_mask,
    read_number,
    solver_choices,
    takes_kernel,
    task_choices,
)
from pag_inverse.app.page import OWN, Given, Shown, measured_sigma, simulated_sigma
from pag_inverse.app.restoring import Outcome, Progress, Stopped, Waiting, restoring
from pag_inverse.app.saying import progress_line, result_text, uncertainty_text, waiting_line
from pag_inverse.app.uploads import Limits, bundled, is_painted, kernel_file, mask_file, preview, read_upload, shown
from pag_inverse.data.images import Picture
from pag_inverse.settings import AUTO, validated

QUEUE = 32  # visitors that wait
KEPT = 3600  # seconds for which a visitor's files stay
READY, STARTING, STOPPED = "Choose, then press Restore.", "Starting.", "Stopped. The picture is unfinished."


@dataclass(frozen=True)
class Visits:
    """The folder and the running restoration of each visitor, by the hash of the session."""

    folder: Path
    stops: dict[str, threading.Event] = field(default_factory=dict)

    def place(self, session: str | None) -> Path:
        """A visitor's folder."""
        found = self.folder / (session or "visitor")
        found.mkdir(parents=True, exist_ok=True)
        return found

    def begin(self, session: str | None) -> threading.Event:
        """The event that stops the restoration which begins; one before it is stopped."""
        self.stop(session)
        event = self.stops[session or "visitor"] = threading.Event()
        return event

    def stop(self, session: str | None) -> None:
        """Stop a visitor's restoration."""
        if (event := self.stops.pop(session or "visitor", None)) is not None:
            event.set()

    def leave(self, session: str | None) -> None:
        """Stop, and remove the visitor's files."""
        self.stop(session)
        shutil.rmtree(self.folder / (session or "visitor"), ignore_errors=True)


def build(limits: Limits, device: str, folder: Path) -> gr.Blocks:
    """The page, not launched; `folder` holds what visitors give and get."""
    visits = Visits(folder)
    with gr.Blocks(title=page.TITLE, analytics_enabled=False, delete_cache=(600, KEPT)) as blocks:
        gr.Markdown("# Restore a picture\nWith a diffusion prior and Perturbed-Attention Guidance, on this machine.")
        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                upload, photographs, seen = page.picture_section(limits)
                degradation = page.degradation_section()
                solver = page.solver_section()
            with gr.Column(scale=6, min_width=320):
                gr.Markdown("## 4 Result")
                with gr.Row():
                    start = gr.Button("Restore", variant="primary", elem_id="restore")
                    stop = gr.Button("Stop", variant="stop", elem_id="stop", interactive=False)
                result = page.result_section()
        given = Given(upload=upload, bundled=photographs, **degradation, **solver)
        _Wiring(visits, limits, device, given, result, seen, start, stop).connect(blocks)
    blocks.queue(default_concurrency_limit=4, max_size=QUEUE)
    return blocks


@dataclass(frozen=True)
class _Wiring:
    """The events of one page."""

    visits: Visits
    limits: Limits
    device: str
    given: Given
    result: Shown
    seen: gr.Image
    start: gr.Button
    stop: gr.Button

    def connect(self, blocks: gr.Blocks) -> None:
        """Say which function answers to what."""
        given, result = self.given, self.result
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        quiet["trigger_mode"] = "always_last"  # a change is not lost while the one before is answered
        source, views = [given.upload, given.bundled, given.own, given.task], [self.seen, given.painted]
        fitting = [given.own, given.task, given.prior]
        masks = [given.mask, given.mask_convention, given.remove_colour]
        fitted = [given.size, *masks, given.kernel, given.sigma, given.peak, given.solver]
        gr.on([blocks.load, given.upload.change, given.bundled.change], self.show, source, views, **quiet)
        chosen = given.own.change(self.tasks, [given.own, given.task], given.task, **quiet)
        for event in (chosen.then, given.task.input):
            event(self.fit, fitting, fitted, **quiet).then(self.show, source, views, **quiet)
        given.prior.input(self.fit, fitting, fitted, **quiet)
        self.start.click(
            self.restore,
            [getattr(given, part.name) for part in fields(given)],
            [*(getattr(result, part.name) for part in fields(result)), self.start, self.stop],
            concurrency_limit=QUEUE,  # restorations wait for each other where Stop reaches them, not in gradio's queue
            concurrency_id="prior",
            show_progress="minimal",
            show_progress_on=[result.status],
            api_visibility="private",
        )
        self.stop.click(self.halt, None, None, **quiet, queue=False)
        blocks.unload(self.leave)

    def show(
        self, request: gr.Request, upload: str | None, photograph: str | None, own: str, task: str
    ) -> tuple[Any, Any]:
        """The picture, and where a hole may be painted the same in the editor."""
        painting = own == OWN and needs_mask(task)
        try:
            _, picture = self._picture(request, upload, photograph, own == OWN, False)
        except ValueError as error:
            gr.Warning(str(error), title="")
            # The editor stays where it is: gradio loses it when it is hidden and shown again at once.
            return gr.update(value=None, visible=not painting), gr.update(value=None, visible=painting)
        value = {"background": picture, "layers": [], "composite": None} if painting else None
        return (
            gr.update(value=preview(picture), visible=not painting),
            gr.update(value=value, visible=painting),
        )

    def tasks(self, own: str, task: str) -> Any:
        """The tasks that a picture or a measurement has; the one before stays where it can."""
        choices = task_choices(own == OWN)
        names = [name for _, name in choices]
        return gr.update(choices=choices, value=task if task in names else names[0])

    def fit(self, own: str, task: str, prior: str) -> tuple[Any, ...]:
        """Show what a task asks for: size, mask, its convention, colour, kernel, sigma, peak; and its solvers."""
        measured, photons = own == OWN, counts_photons(task)
        masked = measured and needs_mask(task)
        info = measured_sigma(task) if measured else simulated_sigma(task)
        return (
            gr.update(visible=not measured),
            gr.update(visible=masked, value=None),
            gr.update(visible=masked),
            gr.update(visible=masked, value=""),
            gr.update(visible=measured and takes_kernel(task), value=None),
            gr.update(visible=not photons, info=info),
            gr.update(visible=photons),
            gr.update(choices=solver_choices(task, prior), value=AUTO),
        )

    def restore(self, request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Restore, and show each step; every error is a toast of one line."""
        chosen = dict(zip((part.name for part in fields(self.given)), values, strict=True))
        stop = self.visits.begin(request.session_hash)
        try:
            yield self._update(status=STARTING, running=True)
            choices, files = self._choices(chosen), self._files(request, chosen)
            asked = make_request(choices, files, self.device)
            place = self.visits.place(request.session_hash) / "result"
            for message in restoring(asked, files, place, stop):
                yield self._update(message, running=not isinstance(message, Outcome))
        except Stopped:
            yield self._update(status=STOPPED)
        except ValueError as error:
            yield self._update(status=READY)
            raise gr.Error(shown(error), title="", duration=15, print_exception=False) from error
        finally:
            stop.set()

    def halt(self, request: gr.Request) -> None:
        """Stop the visitor's restoration after the step that is being computed, or at once where it waits."""
        self.visits.stop(request.session_hash)

    def leave(self, request: gr.Request) -> None:
        """The visitor has closed the page."""
        self.visits.leave(request.session_hash)

    def _picture(
        self, request: gr.Request, upload: str | None, photograph: str | None, own: bool, whole: bool
    ) -> tuple[Path, Picture]:
        """The file that is chosen and its picture; ValueError where there is none or it does not do."""
        path = Path(upload) if upload else None
        if path is None and photograph:
            path = bundled(photograph, own, self.visits.place(request.session_hash), self.limits)
        return path or Path(), read_upload(path, own, whole, self.limits)

    def _choices(self, chosen: dict[str, Any]) -> Choices:
        names = [part.name for part in fields(Choices) if part.name not in ("own", "size")]
        size = None if chosen["size"] == page.WHOLE else int(chosen["size"])
        given = {name: read_number(name, chosen[name]) if name in NUMBERS else chosen[name] for name in names}
        given |= {"seed": given["seed"] or 0, "remove_colour": _colour(chosen)}
        return validated(Choices, {**given, "own": chosen["own"] == OWN, "size": size})

    def _files(self, request: gr.Request, chosen: dict[str, Any]) -> Files:
        """The visitor's files, checked."""
        own, whole = chosen["own"] == OWN, chosen["size"] == page.WHOLE
        path, picture = self._picture(request, chosen["upload"], chosen["bundled"], own, whole)
        mask = kernel = None
        if own and needs_mask(chosen["task"]):
            upload = Path(chosen["mask"]) if chosen["mask"] else None
            layers = (chosen["painted"] or {}).get("layers", [])
            if upload is not None or is_painted(layers) or _colour(chosen) is None:
                place = self.visits.place(request.session_hash)
                missing = chosen["mask_convention"] == "white-missing"
                mask = mask_file(upload, layers, picture.shape[:2], place, white_is_missing=missing)
        if own and takes_kernel(chosen["task"]):
            kernel = kernel_file(Path(chosen["kernel"]) if chosen["kernel"] else None)
        return Files(path, mask, kernel)

    def _update(
        self, message: Waiting | Progress | Outcome | None = None, *, status: str = "", running: bool = False
    ) -> tuple[Any, ...]:
        """A value for each component of the result, and for the two buttons."""
        shown_now: dict[str, Any] = {}
        if isinstance(message, Waiting):
            status = waiting_line(message)
        elif isinstance(message, Progress):
            status = progress_line(message)
            if message.picture is not None:
                shown_now["live"] = message.picture
        elif isinstance(message, Outcome):
            status, shown_now = "Done.", _finished(message)
        elif running:
            shown_now = _emptied()
        values = [
            shown_now.get(part.name, gr.skip() if part.name != "status" else status) for part in fields(self.result)
        ]
        return (*values, gr.update(interactive=not running), gr.update(interactive=running))


def _colour(chosen: dict[str, Any]) -> str | None:
    """The colour of what is missing; None where the field is empty."""
    return (chosen["remove_colour"] or "").strip() or None


def _emptied() -> dict[str, Any]:
    """The result before the first step."""
    hidden = gr.update(visible=False)
    parts = ("compare", "uncertainty", "more", "download")
    return {"live": gr.update(value=None, visible=True), "text": "", **dict.fromkeys(parts, hidden)}


def _finished(outcome: Outcome) -> dict[str, Any]:
    """The components of a finished restoration."""
    std, explanation = outcome.picture("std"), outcome.picture("explain")
    found = {
        "live": gr.update(value=None, visible=False),
        "compare": gr.update(value=(outcome.before, outcome.restoration), visible=True),
        "text": result_text(outcome),
        "uncertainty": gr.update(visible=std is not None),
        "more": gr.update(visible=True),
        "comparison": str(outcome.picture("comparison")),
        "residual": str(outcome.picture("residual")),
        "explanation": gr.update(value=explanation and str(explanation), visible=explanation is not None),
        "command": outcome.command,
        "download": gr.update(value=str(outcome.archive), visible=True),
    }
    if std is not None:
        found |= {"deviation": str(std), "deviation_text": uncertainty_text(outcome.entry)}
    return found
