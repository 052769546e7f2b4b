"""An instance's form: its fields by subject, what they hold, what is wrong there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from llamactl.config import Config
from llamactl.errors import InstanceExists, InvalidInstanceName, LlamactlError, UnsupportedBackend
from llamactl.web.pages import instance_questions
from llamactl.web.pages.fields import Field

Typed = Mapping[str, str]
Choices = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class InstanceForm:
    """The fields by subject: what runs, what memory it takes, who asks it, and all the rest."""

    what: Sequence[Field]
    size: Sequence[Field]
    requests: Sequence[Field]
    more: Sequence[Field]

    @property
    def more_open(self) -> bool:
        """Whether something behind "More options" is wrong and must be seen."""
        return any(field.wrong for field in self.more)

    @property
    def more_set(self) -> str:
        """What is set behind "More options", so that nobody has to look."""
        return ", ".join(
            field.label for field in self.more if field.value and field.kind != "check"
        )

    def named(self) -> Sequence[str]:
        """The names of all fields, in the order of the page."""
        fields = (*self.what, *self.size, *self.requests, *self.more)
        return [field.name for field in fields]

    def each(self, change: Callable[[Field], Field]) -> InstanceForm:
        """The form with every field changed."""
        return InstanceForm(
            *(
                [change(field) for field in fields]
                for fields in (self.what, self.size, self.requests, self.more)
            )
        )


def empty_form(config: Config, *, named: bool = True) -> InstanceForm:
    """The fields without values; their texts say what an empty one means.

    ``named``: with a field for the name, which an instance that exists keeps.
    """
    what = instance_questions.what()
    return InstanceForm(
        what if named else what[1:],
        instance_questions.size(),
        instance_questions.requests(config),
        instance_questions.more(config),
    )


def shown(form: InstanceForm, values: Typed) -> InstanceForm:
    """The form with these values in its fields."""

    def fill(field: Field) -> Field:
        value = values.get(field.name, "")
        choices = field.choices
        if field.kind == "select" and value and value not in dict(choices):
            # A value that we do not know is the person's all the same.
            choices = [*choices, (value, value)]
        return replace(field, value=value, choices=choices)

    return form.each(fill)


def with_models(form: InstanceForm, models: Choices) -> InstanceForm:
    """The form whose field Model suggests the cached ones: (path, name)."""
    return form.each(
        lambda field: replace(field, choices=models) if field.name == "model" else field
    )


def told(form: InstanceForm, error: LlamactlError) -> tuple[InstanceForm, LlamactlError | None]:
    """The form with the error beside its field, or with the error that belongs to none."""
    culprit = _culprit(form, error)
    if culprit is None:
        return form, error

    def mark(field: Field) -> Field:
        return replace(field, wrong=_worded(error, field)) if field.name == culprit else field

    return form.each(mark), None


def sentence(form: InstanceForm, error: LlamactlError) -> str:
    """The error in the words of the form, wherever it is shown."""
    fields = (*form.what, *form.size, *form.requests, *form.more)
    culprit = _culprit(form, error)
    return next((_worded(error, each) for each in fields if each.name == culprit), error.details)


def _worded(error: LlamactlError, field: Field) -> str:
    """The error in the words of the form, where everything is typed and fields have labels."""
    path = str(getattr(error, "field", None) or "")
    words = error.details
    for name in (path, field.name):
        if name and words.startswith(f"{name} "):
            words = f"{_called(path, field)}{words[len(name) :]}"
        elif name and words.startswith(f"{name}: "):
            # What follows is a sentence of its own, which names the flag where there is one.
            words = f"{field.label}{words[len(name) :]}"
    return words.replace(", not a string.", ".")


def _called(path: str, field: Field) -> str:
    """The label of a field, or of one with many lines the flag or the variable in it."""
    _, inside, line = path.partition(f"{field.name}.")
    if not inside or not line:
        return field.label
    return f"--{line.lstrip('-').replace('_', '-')}" if field.name == "extra_args" else line


def _culprit(form: InstanceForm, error: LlamactlError) -> str | None:
    if isinstance(error, InvalidInstanceName | InstanceExists):
        return "name"
    if isinstance(error, UnsupportedBackend):
        return "backend_type"
    parts = str(getattr(error, "field", None) or "").split(".")
    return next((part for part in parts if part in form.named()), None)
