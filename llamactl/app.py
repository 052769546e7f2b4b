"""The application factory: the one place where everything meets."""

from __future__ import annotations

from flask import Flask

from llamactl import assets
from llamactl.config import Config
from llamactl.runtime import Runtime
from llamactl.web import api as rest
from llamactl.web import auditing, errors, openai, pages, security


def create_app(config: Config, runtime: Runtime) -> Flask:
    """Build the Flask application over ``runtime``. Starts no thread and opens no file."""
    app = Flask(
        __name__,
        template_folder=str(assets.templates_dir()),
        static_folder=str(assets.static_dir()),
        static_url_path="/static",
    )
    app.extensions["llamactl"] = runtime
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default provider has it
    app.url_map.strict_slashes = False
    errors.install(app)
    security.install(app, config)
    auditing.install(app)
    for blueprint in (*rest.blueprints(), *openai.blueprints(), *pages.blueprints()):
        app.register_blueprint(blueprint)
    return app
