"""From settings to a teacher that can be asked."""

from __future__ import annotations

from lab_pipeline.config.settings import EmbeddedTeacherSettings, Settings, TeacherSettings
from lab_pipeline.core.home import Home
from lab_pipeline.models.base_model import fetch_model, model_identity
from lab_pipeline.teacher.embedded import EmbeddedTeacher
from lab_pipeline.teacher.protocol import Teacher


def teacher_identities(settings: Settings) -> tuple[str, str]:
    """Identities of teacher and judge, without loading or contacting either."""
    return _identity(settings.teacher), _identity(settings.judge or settings.teacher)


def load_teachers(home: Home, settings: Settings) -> tuple[Teacher, Teacher]:
    """The teacher and the judge; they are one object where the settings name no judge of its own."""
    teacher = _load(home, settings.teacher)
    return teacher, _load(home, settings.judge) if settings.judge else teacher


def _identity(chosen: TeacherSettings) -> str:
    if isinstance(chosen, EmbeddedTeacherSettings):
        return model_identity(chosen.model)
    return f"{chosen.model} at {chosen.url}"


def _load(home: Home, chosen: TeacherSettings) -> Teacher:
    if isinstance(chosen, EmbeddedTeacherSettings):
        model = fetch_model(home, chosen.model)
        return EmbeddedTeacher(model.folder, model.identity, chosen.batch_size)
    from lab_pipeline.teacher.endpoint import EndpointTeacher

    return EndpointTeacher(chosen)
