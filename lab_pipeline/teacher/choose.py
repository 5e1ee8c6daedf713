"""Load the teacher and the judge that the settings name."""

from __future__ import annotations

from lab_pipeline.config.settings import Settings
from lab_pipeline.config.teachers import EmbeddedTeacherSettings, TeacherSettings
from lab_pipeline.core.home import Home
from lab_pipeline.models.base_model import fetch_model, model_identity
from lab_pipeline.teacher.dialect import endpoint_identity
from lab_pipeline.teacher.embedded import EmbeddedTeacher
from lab_pipeline.teacher.protocol import Teacher


def teacher_identities(settings: Settings) -> tuple[str, str]:
    """Return the identities of the teacher and of the judge, without loading or contacting either.

    Without a judge in the settings, the teacher judges, and both identities are the same.

    Raises:
        ModelError: an embedded model is not installed, or its folder lacks a file.
    """
    return _identity(settings.teacher), _identity(settings.judge or settings.teacher)


def load_teachers(home: Home, settings: Settings) -> tuple[Teacher, Teacher]:
    """Return the teacher and the judge; fetch the model of an embedded one, which it loads at its first request.

    Without a judge in the settings, the teacher judges, and both are the same object.

    Raises:
        ModelError: an embedded model cannot be fetched.
        SettingsError: the environment variable with an endpoint's key is not set.
    """
    teacher = _load(home, settings.teacher)
    return teacher, _load(home, settings.judge) if settings.judge else teacher


def _identity(settings: TeacherSettings) -> str:
    if isinstance(settings, EmbeddedTeacherSettings):
        return model_identity(settings.model)
    return endpoint_identity(settings)


def _load(home: Home, settings: TeacherSettings) -> Teacher:
    if isinstance(settings, EmbeddedTeacherSettings):
        model = fetch_model(home, settings.model)
        return EmbeddedTeacher(model.folder, model.identity, settings.batch_size)
    from lab_pipeline.teacher.endpoint import EndpointTeacher

    return EndpointTeacher(settings, home.dialect(endpoint_identity(settings)), home.slots(settings.url))
