"""The contract of a method: its options in the .proto, read once into one frozen policy.

`method_policy("/pkg.Service/Method")` merges the method's `(accord.v1.policy)` with the defaults of
its service field by field (a message field is replaced whole) and keeps the result. A policy acts
where its field is present, and only then; what a message leaves out has the library's defaults. A
policy that contradicts itself raises `ContractError`, which names file, method and field; a server
checks all its services at start-up with `check_service`.
"""

from accord.contract.event import event_policy as event_policy
from accord.contract.event import read_event as read_event
from accord.contract.merging import merge_options as merge_options
from accord.contract.options_reader import Reading as Reading
from accord.contract.options_reader import read_method as read_method
from accord.contract.policy_types import CompensationPolicy as CompensationPolicy
from accord.contract.policy_types import ContractError as ContractError
from accord.contract.policy_types import Dark as Dark
from accord.contract.policy_types import EdgePolicy as EdgePolicy
from accord.contract.policy_types import EventPolicy as EventPolicy
from accord.contract.policy_types import FloorPolicy as FloorPolicy
from accord.contract.policy_types import Key as Key
from accord.contract.policy_types import LimitPolicy as LimitPolicy
from accord.contract.policy_types import MethodPolicy as MethodPolicy
from accord.contract.policy_types import ResumePolicy as ResumePolicy
from accord.contract.policy_types import SagaPolicy as SagaPolicy
from accord.contract.policy_types import StreamPolicy as StreamPolicy
from accord.contract.registry import LIVE_FIELDS as LIVE_FIELDS
from accord.contract.registry import check_service as check_service
from accord.contract.registry import live_policy as live_policy
from accord.contract.registry import method_policy as method_policy
