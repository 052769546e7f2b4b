"""The pages of download jobs, and the buttons that act on them."""

from __future__ import annotations

import time

from flask import Blueprint, Response, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from llamactl.downloads.snapshots import job_json
from llamactl.web import services
from llamactl.web.pages.live import Part, render_page
from llamactl.web.pages.replies import button, done
from llamactl.web.views import JobsView, JobView, job_view

blueprint = Blueprint("downloads", __name__)


@blueprint.get("/downloads")
def index() -> Response:
    """Show all jobs, newest first."""
    return render_page("downloads/index.html", url_for("pages.downloads.index"), {"jobs": _all})


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


def _back(job_id: str, verb: str) -> str:
    came_from = request.form.get("back")
    if came_from == "job" and verb != "remove":
        return url_for("pages.downloads.show", job_id=job_id)
    if came_from == "models":
        return url_for("pages.models.index")
    return url_for("pages.downloads.index")


def _all() -> Part:
    now = time.time()
    view = JobsView(tuple(job_view(job_json(each), now) for each in services().downloads.jobs()))
    return Part("downloads/_jobs.html", view, view.moving)


def _view(job_id: str) -> JobView:
    return job_view(job_json(services().downloads.job(job_id)), time.time())
