"""Durable sagas: a chain of calls that is either carried through or undone."""

from services.runtime.saga.definition import Definition, Step
from services.runtime.saga.machine import Kind, Phase, Position
from services.runtime.saga.sagas import MIGRATIONS, Saga, Sagas

__all__ = [
    "MIGRATIONS",
    "Definition",
    "Kind",
    "Phase",
    "Position",
    "Saga",
    "Sagas",
    "Step",
]
