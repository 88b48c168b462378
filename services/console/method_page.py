"""The page of a method: its contract, what differs, how it goes, and forms to change it."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import grpc
from google.protobuf.json_format import MessageToDict, MessageToJson

from accord.contract.live_overrides import OverrideRefused, parse
from accord.ops.v1 import audit_pb2
from accord.ops.v1 import mesh_pb2 as pb
from accord.ops.v1.audit_pb2_grpc import AuditServiceStub
from accord.ops.v1.mesh_pb2_grpc import MeshServiceStub
from accord.v1.policy_pb2 import StatusCode
from services.console import formatting as fmt
from services.console import mesh_page
from services.console.access import Session
from services.console.call_form import call, call_form
from services.console.contracts import callers_of, methods, server_of
from services.console.edges import calls_of
from services.console.html import Child, Html, el, facts, join, table, url
from services.console.page import (
    Live,
    Page,
    Refused,
    area,
    choice,
    confirm,
    confirmed,
    field,
    first,
    flag,
    form,
)
from services.console.services import Services
from services.console.watch import MeshWatch

__all__ = ["ACTS", "call", "page"]

Given = Mapping[str, list[str]]

CODES: Final = {name.removeprefix("STATUS_CODE_"): number for name, number in StatusCode.items()}
DARK: Final = {
    fmt.name(name, "DARK_POLICY_"): name for name, number in pb.DarkPolicy.items() if number
}

_TIME: Final = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)(ms|s|m)")


def seconds_of(text: str) -> str:
    """`200ms`, `2s` or `1m` as protobuf writes a duration in JSON. Raises Refused."""
    found = _TIME.fullmatch(text)
    if not found:
        raise Refused(f"{text!r} is not a time such as 200ms, 2s or 1m")
    return f"{float(found[1]) * {'ms': 0.001, 's': 1, 'm': 60}[found[2]]:.9f}s"


def _known(method: str) -> str:
    if method not in methods() or not server_of(method):
        raise Refused("there is no such method", 404)
    return server_of(method)


async def page(services: Services, watch: MeshWatch, method: str, session: Session | None) -> Page:
    """The page. Raises Refused."""
    server = _known(method)
    request = pb.ListMethodsRequest(method_prefix=method)
    answers, problems = await services.everywhere(MeshServiceStub, "ListMethods", request)
    known = {
        name: each
        for name, answer in answers.items()
        for each in answer.methods
        if each.method == method
    }
    served = known.get(server, pb.Method(method=method))
    away = [el("li", fmt.state(name, "bad"), f" {why}") for name, why in problems.items()]
    calls = [each for each in calls_of(watch.seen) if each.method == method]
    about = facts(served_by=server, may_be_called_by=", ".join(callers_of(method)) or "everybody")
    parts: list[Html | Live] = [
        about,
        el("p", el("a", "Its contract in the reference", href=f"{url('reference')}/#{method}")),
        Live("away", el("ul", away, class_="problem") if away else join()),
        el("h2", "Now"),
        Live("calls", mesh_page.calls_table(calls)),
        Live("processes", _processes(known)),
        el("h2", "Policy"),
        Live("policy", _policy(served)),
    ]
    if session is not None:
        parts += [el("h2", "Change it"), *_forms(method, served, session), el("h2", "Call it")]
        parts.append(call_form(method, session))
    parts += [el("h2", "Who has intervened"), Live("audit", await _audit(services, server, method))]
    return Page(method, "", parts)


def _policy(found: pb.Method) -> Html:
    """Field by field: the contract, and what holds."""
    contract, policy = MessageToDict(found.contract), MessageToDict(found.policy)
    floor = contract.get("floor", {})
    rows: list[list[Child]] = []
    for name in dict.fromkeys((*contract, *policy)):
        stated, holds = contract.get(name), policy.get(name)
        differs = fmt.state(_said(holds) or "off", "warn") if holds != stated else "as stated"
        if name != "floor":
            rows.append([name, _said(stated), differs, _floor(name, floor)])
    return table(
        "What the contract says, and what holds",
        ("Field", "Contract", "In force", "Not below"),
        rows,
        "The contract states none, or it is not known.",
    )


def _floor(name: str, floor: Mapping[str, Any]) -> str:
    of = {"timeout": "timeout", "retry": "maxAttempts"}.get(name, "")
    return _said(floor[of]) if of in floor else ""


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(each)}" for name, each in value.items()) or "on"
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    return "" if value is None else str(value).removeprefix("STATUS_CODE_")


def _processes(known: Mapping[str, pb.Method]) -> Html:
    rows: list[list[Child]] = []
    for name, each in known.items():
        calls = sum(of.calls for of in each.called)
        role = (
            "serves it" if each.served else f"has called it {calls} times" if calls else "knows it"
        )
        override = each.HasField("override") and join(
            el("code", _said(MessageToDict(each.override))),
            el("small", f"{each.override_principal or 'not by this process'}: "),
            el("small", each.override_reason),
        )
        fault = each.HasField("fault") and join(
            fmt.state(_said(MessageToDict(each.fault)), "warn"),
            el("small", f"{fmt.duration(each.fault_ends_in)} left; {each.fault_principal}: "),
            el("small", each.fault_reason),
        )
        counts = ", ".join(f"{what} {number}" for what, number in sorted(each.counts.items()))
        timeout = fmt.duration(each.timeout) if each.HasField("timeout") else "none"
        rows.append(
            [name, role, timeout, each.max_attempts, override or "none", fault or "none", counts]
        )
    heads = ("Process", "Role", "Timeout", "Attempts", "Override", "Fault", "Decided")
    return table("In each process", heads, rows, "No process has said anything of it yet.")


def _forms(method: str, found: pb.Method, session: Session) -> list[Html]:
    if session.role != "operator":
        return [el("p", "That needs the role operator.")]
    floor = found.contract.floor
    least = (
        f"not below {fmt.duration(floor.timeout)}"
        if floor.HasField("timeout")
        else "e.g. 800ms, 2s"
    )
    fewest = f"not below {floor.max_attempts}" if floor.max_attempts else ""
    dark = set(found.override.dark)
    boxes = [
        flag(word, "dark", name, pb.DarkPolicy.Value(name) in dark) for word, name in DARK.items()
    ]
    now = MessageToJson(found.override) if found.HasField("override") else "{}"
    override = form(
        session,
        f"{url('override')}/{method}",
        field("Timeout", "timeout", hint=least),
        field("Attempts, the first included", "attempts", hint=fewest, inputmode="numeric"),
        el("fieldset", el("legend", "Only decide and count (dark mode)"), boxes),
        area("All of it, as in a policy file", "json", now),
        confirmed("Override", "The whole mesh follows within a second."),
    )
    fault = form(
        session,
        f"{url('fault')}/{method}",
        field("Delay", "delay", hint="e.g. 200ms, 2s; none: leave it empty"),
        choice(
            "Abort with", "abort", {"": "nothing", **{name: name for name, n in CODES.items() if n}}
        ),
        field("Share of calls, in percent", "percent", 100, type="number", min=1, max=100),
        field("For how long", "lasting", "1m", hint="at most 60m"),
        confirmed("Inject the fault", "Calls of real users may fail."),
    )
    groups = [_folded("Override its policy", override), _folded("Inject a fault", fault)]
    if found.HasField("override"):
        groups.append(_clear("override", method, session, "Clear the override"))
    if found.HasField("fault"):
        groups.append(_clear("fault", method, session, "End the fault"))
    return groups


def _folded(title: str, inside: Html) -> Html:
    return el("details", el("summary", title), inside)


def _clear(what: str, method: str, session: Session, button: str) -> Html:
    end = form(
        session,
        f"{url(f'clear-{what}')}/{method}",
        confirmed(button, "What the contract says holds again."),
    )
    return _folded(button, end)


async def _audit(services: Services, server: str, method: str) -> Html:
    request = audit_pb2.ListAuditRequest(target=method, page_size=20)
    try:
        found: Any = await services.read(server, AuditServiceStub, "ListAudit", request)
    except grpc.RpcError:
        return el("p", f"{server} does not answer.", class_="problem")
    rows = [
        (
            fmt.when(each.at),
            each.principal,
            each.method.rpartition("/")[2],
            each.reason,
            each.before,
            each.after,
        )
        for each in found.records
    ]
    return table(
        "Audit records", ("When", "Who", "What", "Why", "Before", "After"), rows, "Nobody has."
    )


async def _override(services: Services, method: str, given: Given, session: Session) -> str:
    server, reason = _known(method), confirm(given)
    try:
        wanted = json.loads(first(given, "json") or "{}")
        policy = wanted.setdefault("policy", {})
        if timeout := first(given, "timeout"):
            policy["timeout"] = seconds_of(timeout)
        if attempts := first(given, "attempts"):
            policy.setdefault("retry", {}).pop("maxAttempts", None)
            policy["retry"]["max_attempts"] = int(attempts)
        wanted["dark"] = given.get("dark", [])
        override = parse(method, json.dumps(wanted))
    except OverrideRefused as refusal:
        raise Refused(f"the override {refusal.problem}") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise Refused(f"the override cannot be read: {error}") from None
    request = pb.SetOverrideRequest(method=method, override=override, reason=reason)
    await services.act(session, server, MeshServiceStub, "SetOverride", request, "")
    return "The override is in force."


async def _clear_override(services: Services, method: str, given: Given, session: Session) -> str:
    request = pb.ClearOverrideRequest(method=method, reason=confirm(given))
    await services.act(session, _known(method), MeshServiceStub, "ClearOverride", request, "")
    return "There is no live policy any more."


async def _fault(services: Services, method: str, given: Given, session: Session) -> str:
    server, reason = _known(method), confirm(given)
    delay, code = first(given, "delay"), CODES.get(first(given, "abort"), 0)
    percent = first(given, "percent", "100")
    if not (delay or code):
        raise Refused("say how it fails: a delay, a code, or both")
    if not percent.isdecimal() or not 1 <= int(percent) <= 100:
        raise Refused("the share is 1 to 100")
    fault = pb.Fault(
        delay_percent=int(percent) if delay else 0,
        abort_code=code,  # type: ignore[arg-type]
        abort_percent=int(percent) if code else 0,
    )
    if delay:
        fault.delay.FromJsonString(seconds_of(delay))
    request = pb.InjectFaultRequest(method=method, fault=fault, reason=reason)
    request.lasting.FromJsonString(seconds_of(first(given, "lasting", "1m")))
    await services.act(session, server, MeshServiceStub, "InjectFault", request, "")
    return "The fault is injected; it ends by itself."


async def _clear_fault(services: Services, method: str, given: Given, session: Session) -> str:
    request = pb.ClearFaultRequest(method=method, reason=confirm(given))
    await services.act(session, _known(method), MeshServiceStub, "ClearFault", request, "")
    return "There is no fault any more."


ACTS: Final[Mapping[str, Callable[[Services, str, Given, Session], Awaitable[str]]]] = {
    "override": _override,
    "clear-override": _clear_override,
    "fault": _fault,
    "clear-fault": _clear_fault,
}
"""Path of a form -> what does it, and says what it has done."""
