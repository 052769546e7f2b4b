"""The pages of download jobs, and the buttons that act on them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from flask import Blueprint, Response, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from llamactl.downloads.limits import Limits
from llamactl.downloads.snapshots import job_json
from llamactl.downloads.states import Job
from llamactl.settings import SETTINGS
from llamactl.web import services
from llamactl.web.job_views import JobsView, JobView, job_view, limits_text
from llamactl.web.pages.fields import Field
from llamactl.web.pages.live import Part, render_page
from llamactl.web.pages.replies import button, done

blueprint = Blueprint("downloads", __name__)

PER_PAGE = 100
SETTING = {setting.name: setting for setting in SETTINGS}


@blueprint.get("/downloads")
def index() -> Response:
    """Show all jobs, newest first; with ``?form=limits`` the form of what limits them."""
    if request.args.get("form") != "limits":
        return _page(None)
    limits = services().downloads.limits
    speed = limits.bandwidth_limit
    return _page(_limits(str(limits.max_concurrent), "" if speed is None else str(speed)))


@blueprint.post("/downloads/limits")
def limit() -> AnyResponse:
    """Change how many jobs run and how fast, or return to what the configuration says."""
    queue = services().downloads
    if "configured" in request.form:
        queue.set_limits(None)
        return redirect(url_for("pages.downloads.index"), 303)
    jobs, speed = (request.form.get(name, "").strip() for name in ("max_concurrent", "bandwidth"))
    wrong: dict[str, str] = {}
    for field, setting, typed in (
        ("max_concurrent", "downloads.max_concurrent", jobs),
        ("bandwidth", "downloads.bandwidth_limit", speed),
    ):
        try:
            SETTING[setting].parse(typed, {})
        except ValueError as error:
            wrong[field] = f"It {error}."
    if wrong:
        return _page(_limits(jobs, speed, wrong), 400)
    at_a_time = SETTING["downloads.max_concurrent"].parse(jobs, {})
    queue.set_limits(Limits(at_a_time, SETTING["downloads.bandwidth_limit"].parse(speed, {})))
    return redirect(url_for("pages.downloads.index"), 303)


@blueprint.get("/downloads/<job_id>")
def show(job_id: str) -> Response:
    """Show one job with the progress of each file."""
    job = _view(job_id)
    return render_page(
        "downloads/show.html",
        url_for("pages.downloads.show", job_id=job_id),
        {"job": lambda: Part("downloads/_show.html", job, job.moving)},
        job=job,
    )


@blueprint.post("/downloads/clear")
@button
def clear() -> AnyResponse:
    """Take what has ended off the list, but for what can go on."""
    services().downloads.clear()
    models = request.form.get("back") == "models"
    return done(url_for("pages.models.index" if models else "pages.downloads.index"))


@blueprint.post("/downloads/<job_id>/<any(pause, resume, retry, remove):verb>")
@button
def act(job_id: str, verb: str) -> AnyResponse:
    """Pause, resume, retry a job; cancel it or take it off the list."""
    queue = services().downloads
    if verb == "pause":
        queue.pause(job_id)
    elif verb == "resume":
        queue.resume(job_id)
    elif verb == "retry":
        queue.retry(job_id)
    else:
        queue.delete(job_id)
    return done(_back(job_id, verb))


def _page(form: Sequence[Field] | None, status: int = 200) -> Response:
    queue = services().downloads
    typed = request.args.get("page", "")
    page = max(1, int(typed)) if typed.isascii() and typed.isdigit() and len(typed) < 6 else 1
    return render_page(
        "downloads/index.html",
        _address(page),
        {"jobs": lambda: _some(page)},
        reload=form is None,
        status=status,
        form=form,
        limits=limits_text(queue.limits),
        configured=limits_text(queue.configured) if queue.limits_are_set else None,
    )


def _limits(
    jobs: str, speed: str, wrong: Mapping[str, str] = MappingProxyType({})
) -> Sequence[Field]:
    return (
        Field(
            "max_concurrent",
            "Downloads at a time",
            "number",
            value=jobs,
            wrong=wrong.get("max_concurrent", ""),
            required=True,
            width="half",
        ),
        Field(
            "bandwidth",
            "Bytes per second for all",
            value=speed,
            wrong=wrong.get("bandwidth", ""),
            help="Such as 20MB. Left empty, there is no limit.",
            width="half",
        ),
    )


def _back(job_id: str, verb: str) -> str:
    came_from = request.form.get("back")
    if came_from == "job" and verb != "remove":
        return url_for("pages.downloads.show", job_id=job_id)
    if came_from == "models":
        return url_for("pages.models.index")
    return url_for("pages.downloads.index")


def _some(page: int) -> Part:
    """The jobs of one page, counted from 1."""
    now, total, first = time.time(), 0, (page - 1) * PER_PAGE

    def choose(jobs: Sequence[Job]) -> Sequence[Job]:
        nonlocal total
        total = len(jobs)
        return jobs[first : first + PER_PAGE]

    shown = services().downloads.jobs(choose)
    more = max(0, total - first - len(shown))
    view = JobsView(
        tuple(job_view(job_json(each), now) for each in shown),
        more,
        later=_address(page - 1) if page > 1 else "",
        earlier=_address(page + 1) if more else "",
    )
    return Part("downloads/_jobs.html", view, view.moving)


def _address(page: int) -> str:
    return url_for("pages.downloads.index", page=page if page > 1 else None)


def _view(job_id: str) -> JobView:
    return job_view(job_json(services().downloads.job(job_id)), time.time())
