"""Load training recipes: YAML files with all hyperparameters of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from lab_pipeline.core.errors import LabError
from lab_pipeline.core.validation import Section, validation_problems

SHIPPED = Path(__file__).parent / "recipes"


class Strategy(StrEnum):
    """How the two phases of training, knowledge and skills, are combined."""

    phased = "phased"
    """First knowledge, then skills on the same adapter, with some knowledge rows repeated (LAB paper, section 4)."""
    stacked = "stacked"
    """One run over the rows of both phases, with the hyperparameters of `knowledge`: about as good as *phased* with fewer
    training samples ("Secret Recipe", arXiv 2412.13337)."""


class Lora(Section):
    rank: int = Field(ge=1, le=512)
    alpha: int = Field(ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    rank_stabilized: bool | None = Field(None, description="Scale by alpha / sqrt(rank) (rsLoRA). none = by alpha / rank")


class PhaseRecipe(Section):
    epochs: int = Field(ge=1, le=1000)
    learning_rate: float = Field(gt=0, le=1)
    general_replay: int = Field(0, ge=0, description="Number of general questions to mix in")


class SkillsPhase(PhaseRecipe):
    phase_1_replay: float = Field(ge=0, le=1, description="Share of phase 1's rows that phase 2 repeats")
    raft: float = Field(0.0, ge=0, le=1, description="Share of phase 1's questions that phase 2 asks with documents (RAFT)")


class ValidationRecipe(Section):
    """How many rows are kept from training to validate on, and how much the chosen epoch may have forgotten.

    Of the epochs within `general_tolerance`, the one with the lowest loss on the leaves' validation rows is taken.
    """

    share: float = Field(0.1, ge=0, le=0.5, description="Share of each leaf's curated rows to validate on")
    general: int = Field(24, ge=0, description="Number of general questions to validate on, of those that no phase replays")
    general_tolerance: float = Field(0.1, ge=0, description="Allowed general loss above the base model's, in nats per token")


class Fits(Section):
    """What a recipe is made for. Of those that fit a model and the GPUs, the one that uses most of them is chosen."""

    parameters_from: float = Field(0, ge=0, description="Billions of parameters that the base model has at least")
    parameters_up_to: float = Field(gt=0, description="Billions of parameters that it has at most")
    gpu_gib: float = Field(0, ge=0, description="Memory that each GPU has at least; 0 = no GPU is needed")
    gpus: int = Field(1, ge=1, description="Number of GPUs that there are at least")


class Recipe(Section):
    """All hyperparameters of a training run; the files in `recipes/` explain each value."""

    fits: Fits | None = Field(None, description="When it is chosen. none = only if it is named")
    strategy: Strategy = Strategy.phased
    lora: Lora
    quantization: Literal["nf4", "none"]
    pack_tokens: int = Field(ge=64, le=131_072)
    packs_per_step: int = Field(ge=1)
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    adam_betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    gradient_checkpointing: bool = False
    parallel: Literal["ddp"] | None = Field(
        None,
        description="Several GPUs hold the whole model each (ddp), as by default. There is no fsdp (docs/decisions)",
    )
    attn_implementation: Literal["sdpa", "flash_attention_2", "eager"] | None = Field(
        None, description="none = as transformers chooses for the model"
    )
    optimizer: Literal["adamw_torch", "adamw_torch_fused", "paged_adamw_8bit"] | None = Field(
        None, description="none = paged_adamw_8bit on a GPU, adamw_torch on a CPU"
    )
    liger: bool | None = Field(None, description="Use the Liger kernels, on a GPU and if liger-kernel is installed")
    neftune_alpha: float | None = Field(
        None, gt=0, le=100, description="Size of NEFTune's noise on embeddings. none = no noise"
    )
    save_every_steps: int = Field(25, ge=1)
    validation: ValidationRecipe = ValidationRecipe()
    knowledge: PhaseRecipe
    skills: SkillsPhase

    @property
    def needs_gpu(self) -> bool:
        return self.fits is not None and self.fits.gpu_gib > 0

    @property
    def stacked(self) -> bool:
        return self.strategy == Strategy.stacked

    @property
    def identity(self) -> dict[str, object]:
        """All that changes a training, without what is left out: a new option does not rename what was trained before it."""
        return self.model_dump(exclude={"fits", "parallel"}, exclude_none=True)

    def mixing(self, phase: Literal["knowledge", "skills"]) -> dict[str, object]:
        """Return, as JSON, the hyperparameters that a phase's data set is made with; it is stale once one of them changes.

        For either phase: `strategy`, `validation.share`, `validation.general`, and the `general_replay` of both phases. For
        skills also `skills.phase_1_replay` and `skills.raft`.
        """
        skills = {"general_replay"} | ({"phase_1_replay", "raft"} if phase == "skills" else set())
        chosen = {"validation": {"share", "general"}, "knowledge": {"general_replay"}, "skills": skills}
        return self.model_dump(mode="json", include={"strategy": True, **chosen})

    def phase(self, name: Literal["knowledge", "skills"]) -> PhaseRecipe:
        """Return the hyperparameters to train a phase with: under *stacked*, those of `knowledge` for both phases."""
        return self.skills if name == "skills" and not self.stacked else self.knowledge


def shipped_recipes() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def fitting_recipe(parameters: int, gpus_gib: Sequence[float]) -> str:
    """Return the name of the shipped recipe that fits a base model of so many parameters and GPUs of so much memory.

    Raises:
        LabError: None does.
    """
    fitting = []
    for name in shipped_recipes():
        fits = load_recipe(name).fits
        if fits and fits.parameters_from <= parameters / 1e9 <= fits.parameters_up_to:
            enough = [gib for gib in gpus_gib if gib >= fits.gpu_gib]
            if not fits.gpu_gib or len(enough) >= fits.gpus:
                fitting.append((fits.gpu_gib, fits.gpus, name))
    if not fitting:
        gpus = ", ".join(f"{gib:.0f} GiB" for gib in gpus_gib) or "none"
        raise LabError(
            f"recipe: no shipped one fits a base model of {parameters / 1e9:.1f} billion parameters and these GPUs: {gpus}; "
            f"name a recipe file of your own in settings.yaml, or one of {', '.join(shipped_recipes())}"
        )
    return max(fitting)[2]


def load_recipe(name: str) -> Recipe:
    """Load a shipped recipe by name, or a recipe file by path.

    Raises:
        LabError: No shipped recipe or file has this name, the file is not YAML, or a key is unknown, missing or wrong.
    """
    path = SHIPPED / f"{name}.yaml" if name in shipped_recipes() else Path(name)
    if not path.is_file():
        raise LabError(f"no recipe {name!r}: neither one of {', '.join(shipped_recipes())} nor a file")
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LabError(f"{path}: not valid YAML: {error}") from None
    except ValidationError as error:
        raise LabError(f"{path}: {validation_problems(error)[0]}") from None
