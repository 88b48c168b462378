// An order by REST, in TypeScript: `schema.d.ts` is what openapi-typescript makes of openapi.json.
import createClient, { type Client } from "openapi-fetch";
import type { components, paths } from "./schema.d.ts";

type Order = components["schemas"]["shop.orders.v1.CreateOrderRequest"];

const once = () => ({ header: { "Idempotency-Key": crypto.randomUUID() } });

// Places an order, reads it, and sees one refused.
export async function buy(given: { edge: string; token: string; order: Order }) {
  const { edge: baseUrl, token, order: body } = given;
  const client = createClient<paths>({ baseUrl, headers: { authorization: `Bearer ${token}` } });
  const placed = await client.POST("/v1/orders", { params: once(), body });
  const order_id = placed.data?.order?.orderId ?? "";
  const { data } = await client.GET("/v1/orders/{order_id}", { params: { path: { order_id } } });
  const { error } = await client.POST("/v1/orders", { params: once(), body: { ...body, items: [] } });
  const total: string | undefined = data?.order?.total?.minorUnits;
  const reason: string | undefined = error?.reason;
  return { total, reason };
}

// What does not type-check: tsc complains of an expectation that is not met.
export async function mistakes(client: Client<paths>, body: Order) {
  const path = { order_id: "7" };
  // @ts-expect-error: the key is required
  await client.POST("/v1/orders", { body });
  // @ts-expect-error: there is no such field
  body = { ...body, colour: "red" };
  // @ts-expect-error: the card is required
  body = { customerId: "7", items: [], shipTo: body.shipTo };
  // @ts-expect-error: a number is none of the names
  body = { ...body, fulfilment: 1 };
  // @ts-expect-error: there is no such path
  await client.GET("/v1/order/{order_id}", { params: { path } });
  const { data } = await client.GET("/v1/orders/{order_id}", { params: { path } });
  // @ts-expect-error: an order has no price
  return data?.order?.price;
}
