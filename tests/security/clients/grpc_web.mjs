// An order by gRPC-Web with connect-web, in Node and in browsers alike. There is no generated code:
// the descriptors are those that `accord contracts export protoset --http` writes.
import { createFileRegistry, fromBinary, fromJson } from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

// Places an order, watches it to its end, and sees three calls refused. `edge` is an URL, `image` the
// descriptors in base64, `order` the request as JSON.
export async function buy({ edge, image, token, order }) {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, base64Decode(image)));
  const service = registry.getService("shop.orders.v1.OrderService");
  const statuses = registry.getEnum("shop.orders.v1.OrderStatus").value;
  const client = createClient(service, createGrpcWebTransport({ baseUrl: edge }));
  const mine = { headers: { authorization: `Bearer ${token}` } };
  const once = () => ({ headers: { ...mine.headers, "idempotency-key": crypto.randomUUID() } });

  const request = fromJson(service.method.createOrder.input, order);
  const { orderId } = (await client.createOrder(request, once())).order;
  const seen = [];
  for await (const update of client.streamOrderUpdates({ orderId }, mine)) {
    seen.push([Number(update.sequence), statuses[update.status].name]);
  }
  const { total } = (await client.getOrder({ orderId }, mine)).order;

  // The status of a call that is refused, and its details by type.
  const refused = async (call) => {
    const error = await call.then(() => { throw new Error("it is not refused"); }, ConnectError.from);
    const details = error.findDetails(registry).map(({ $typeName, ...fields }) => [$typeName, fields]);
    return { code: Code[error.code], text: error.rawMessage, details: Object.fromEntries(details) };
  };
  return {
    orderId,
    seen,
    total: String(total.minorUnits),
    invalid: await refused(client.createOrder({ ...request, items: [] }, once())),
    late: await refused(client.cancelOrder({ orderId }, once())),
    anonymous: await refused(client.getOrder({ orderId })),
  };
}
