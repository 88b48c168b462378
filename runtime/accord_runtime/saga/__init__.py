"""Durable sagas: a chain of calls that is either carried through or undone."""

from accord_runtime.saga.contract import Call, Contract, Local
from accord_runtime.saga.definition import Definition, Kind, Step
from accord_runtime.saga.orchestrator import LATER_MIGRATIONS, MIGRATIONS, Saga, Sagas
from accord_runtime.saga.state_machine import Phase, Position

__all__ = [
    "LATER_MIGRATIONS",
    "MIGRATIONS",
    "Call",
    "Contract",
    "Definition",
    "Kind",
    "Local",
    "Phase",
    "Position",
    "Saga",
    "Sagas",
    "Step",
]
