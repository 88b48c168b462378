// An order by REST with nothing but fetch, in Node and in browsers alike.

// The messages of a stream of server-sent events, with their ids. A browser's EventSource sends no
// token, so that it is read by hand: https://html.spec.whatwg.org/multipage/server-sent-events.html
async function* events(answer) {
  let rest = "";
  for await (const text of answer.body.pipeThrough(new TextDecoderStream())) {
    const blocks = (rest + text).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: ?(.*)/s)));
      yield { event: "message", ...fields };
    }
  }
}

// Places an order, watches it to its end, and sees three calls refused.
export async function buy({ edge, token, order }) {
  const call = (path, body, headers = { authorization: `Bearer ${token}` }) => fetch(edge + path, {
    method: body ? "POST" : "GET",
    headers: { "content-type": "application/json", "idempotency-key": crypto.randomUUID(), ...headers },
    body: body && JSON.stringify(body),
  });
  const { orderId } = (await (await call("/v1/orders", order)).json()).order;
  const stream = await call(`/v1/orders/${orderId}/updates`);
  const seen = [];
  let last = "";
  for await (const { event, id, data } of events(stream)) {
    if (event === "message" && data) seen.push([Number(id), JSON.parse(data).status]);
    last = event;
  }
  const { total } = (await (await call(`/v1/orders/${orderId}`)).json()).order;

  const refused = async (answer) => {
    const { status, headers } = answer;
    return { status, type: headers.get("content-type"), problem: await answer.json() };
  };
  return {
    orderId,
    seen,
    last,
    total: total.minorUnits,
    invalid: await refused(await call("/v1/orders", { ...order, items: [] })),
    late: await refused(await call(`/v1/orders/${orderId}:cancel`, {})),
    anonymous: await refused(await call(`/v1/orders/${orderId}`, undefined, {})),
  };
}
