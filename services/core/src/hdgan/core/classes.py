"""The classes a stage is asked to work with, as `request.context.classes` carries them."""

from __future__ import annotations

import json

from pydantic import JsonValue, ValidationError

from hdgan.core.errors import RequestError
from hdgan.core.sections import AnnotationsConfig, ClassConfig


def request_classes(value: JsonValue) -> tuple[ClassConfig, ...]:
    """The classes of `ctx.value("classes")`, in order: a class's index is its value in masks.

    2 to 32 classes with names and colours of their own, by the rules of the run file. RequestError
    says which entry is wrong.
    """
    try:
        # Through JSON, because strict models take a list for what it is only when it comes as JSON.
        section = AnnotationsConfig.model_validate_json(json.dumps({"classes": value}))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'classes'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise RequestError(f"request.context.classes is not valid: {problems}") from error
    return tuple(section.classes)
