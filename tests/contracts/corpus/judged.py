"""What is found in contracts that nobody here wrote: as they are, and with a first policy."""

import random
from collections.abc import Mapping

from google.protobuf import descriptor_pb2

from accord.v1 import policy_pb2
from accord_checks import image
from accord_checks.contracts import Contracts
from accord_checks.lint_rules.all_rules import LINT_RULES
from tests.contracts.corpus import descriptors

Image = descriptor_pb2.FileDescriptorSet

PUBLISHED = 5
"""Files of which a message is published."""


def contracts(found: Image) -> Contracts:
    """The contracts of an image."""
    return Contracts(found.file, (file.name for file in found.file if image.imported(file)))


def stated(found: Image) -> Image:
    """The same with a policy for every service: an owner, a timeout, a retry, any caller."""
    made = Image()
    made.CopyFrom(found)
    vocabulary = made.file.add()
    policy_pb2.DESCRIPTOR.CopyToProto(vocabulary)
    vocabulary.MergeFromString(descriptors.IMPORTED)
    for file in made.file:
        if file.service and not image.imported(file):
            file.dependency.append(vocabulary.name)
            for service in file.service:
                policy = service.options.Extensions[policy_pb2.service]
                policy.owner = "team"
                policy.defaults.timeout.seconds = 2
                policy.defaults.retry.max_attempts = 3
                policy.defaults.allow.append("*")
    return made


def published(found: Image) -> Image:
    """The same with events: of each file the first message that has a text to be ordered by.

    Of so many files at most: the AsyncAPI parser takes minutes for a document of megabytes.
    """
    made = stated(found)
    left = PUBLISHED
    for number, file in enumerate(made.file):
        keys = [(message, _text(message)) for message in file.message_type]
        kept = [(message, key) for message, key in keys if key is not None]
        if left and kept and not image.imported(file):
            left -= 1
            message, key = kept[0]
            event = message.options.Extensions[policy_pb2.event]
            event.subject, event.version, event.key = f"corpus.file{number}", 1, key
            if policy_pb2.DESCRIPTOR.name not in file.dependency:
                file.dependency.append(policy_pb2.DESCRIPTOR.name)
    return made


def _text(message: descriptor_pb2.DescriptorProto) -> str | None:
    kinds = descriptor_pb2.FieldDescriptorProto
    fields = (it for it in message.field if it.type == kinds.TYPE_STRING)
    return next((it.name for it in fields if it.label != kinds.LABEL_REPEATED), None)


def findings(found: Image) -> list[str]:
    """What lint says: rule, file and message."""
    read = contracts(found)
    return [
        f"{rule.id} {finding.place.file}: {finding.what}"
        for rule in LINT_RULES
        for finding in rule.check(read)
    ]


def sample(sets: Mapping[str, descriptors.Files], size: int = 100, seed: int = 1) -> list[str]:
    """Findings of all distributions, by lot: as many of each rule as there are, up to its share."""
    found: dict[str, list[str]] = {}
    for name, own in sets.items():
        made, _ = descriptors.image(own, [sets[other] for other in sets if other != name])
        for line in (*findings(made), *findings(stated(made))):
            found.setdefault(line.partition(" ")[0], []).append(f"{name} {line}")
    drawn = random.Random(seed)
    lines: list[str] = []
    for left, rule in enumerate(sorted(found, key=lambda rule: len(found[rule]))):
        share = (size - len(lines)) // (len(found) - left)
        lines += drawn.sample(found[rule], min(share, len(found[rule])))
    return lines
