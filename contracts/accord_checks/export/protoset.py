"""An image for `grpcurl -protoset`: calls to servers that have no reflection.

The whole FileDescriptorSet, imports and comments included, as `protoc --descriptor_set_out` and
`buf build` write it; all other exports read it too.
"""

from google.protobuf import descriptor_pb2


def export(image: descriptor_pb2.FileDescriptorSet) -> bytes:
    """The image as bytes."""
    return image.SerializeToString(deterministic=True)
