// What the page asks of the service: the same interface as everybody else's.

/** An answer that isn't one; `param` names the part of the request that is wrong, if one is. */
export class Refusal extends Error {
  constructor(message, param) {
    super(message);
    this.param = param ?? "";
  }
}

const body = (model, question, picture, more = {}) => JSON.stringify({
  model,
  messages: [{ role: "user", content: [
    { type: "text", text: question },
    { type: "image_url", image_url: { url: picture } },
  ] }],
  ...more,
});

async function post(path, key, sent, signal) {
  const headers = { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  let reply;
  try {
    reply = await fetch(path, { method: "POST", headers, body: sent, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The service doesn't answer. Is it still running?");
  }
  if (!reply.ok) throw await refusalOf(reply);
  return reply;
}

async function refusalOf(reply) {
  try {
    const { error } = await reply.json();
    return new Refusal(error.message, error.param);
  } catch {
    return new Refusal(`The service answered ${reply.status} ${reply.statusText}`);
  }
}

/** The decision alone, as /v1/route gives it. */
export async function route(model, question, picture, key, signal) {
  return (await post("v1/route", key, body(model, question, picture), signal)).json();
}

/**
 * Ask, and tell what comes: {tokens} once it is decided, {text} as it is written, and last {m3} with the whole decision;
 * each with `ms` since the question was sent.
 */
export async function* ask(model, question, picture, key, signal) {
  const began = performance.now();
  const since = () => performance.now() - began;
  const reply = await post("v1/chat/completions", key, body(model, question, picture, { stream: true }), signal);
  yield { ms: since(), tokens: Number(reply.headers.get("x-m3-tokens")) };
  for await (const event of events(reply.body)) {
    if (event.error) throw new Refusal(event.error.message, event.error.param);
    const text = event.choices?.[0]?.delta?.content;
    if (text) yield { ms: since(), text };
    if (event.m3) yield { ms: since(), m3: event.m3 };
  }
}

/** The JSON objects of a stream of server-sent events, up to its [DONE]. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Refusal("The answer broke off. Ask again.");
    const parts = (waiting + value).split("\n\n");
    waiting = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}
