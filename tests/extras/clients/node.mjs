// The unchanged SDK for Node against a running service: prints what it got, as JSON.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "any", maxRetries: 0 });
const messages = [{ role: "user", content: process.argv[3] }];
const got = {};

got.models = (await client.models.list()).data.map((model) => model.id);
const whole = await client.chat.completions.create({ model: "echo", messages });
got.chat = whole.choices[0].message.content;

const several = await client.completions.create({ model: "echo", prompt: ["one", "two"], n: 2 });
got.several = several.choices.map((choice) => choice.text);

let text = "";
const stream = await client.chat.completions.create({
  model: "echo", messages, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  got.usage = chunk.usage?.completion_tokens ?? got.usage;
}
got.streamed = text;

const helper = client.chat.completions.stream({ model: "echo", messages });
got.helper = await helper.finalContent();

const response = await client.responses.create({ model: "echo", input: process.argv[3], background: true });
got.background = response.status;
text = "";
for await (const event of await client.responses.retrieve(response.id, { stream: true, starting_after: 10 })) {
  if (event.type === "response.output_text.delta") text += event.delta;
  got.last = event.type;
}
got.resumed = text;
got.output_text = (await client.responses.retrieve(response.id)).output_text;
got.cancelled = (await client.responses.cancel(response.id)).status;
await client.responses.delete(response.id);

got.errors = [];
const calls = [
  () => client.responses.retrieve(response.id),
  () => client.chat.completions.create({ model: "other", messages }),
  () => client.chat.completions.create({ model: "echo", messages, n: 129 }),
];
for (const call of calls) {
  try {
    await call();
  } catch (error) {
    got.errors.push([error.constructor.name, error.status, error.param]);
  }
}
console.log(JSON.stringify(got));
