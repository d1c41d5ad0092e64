// What transformers.js answers in each case, in Node.js and in a browser; `js` is the library, `options` those of its models.
export async function answers(js, options, cases) {
  const answer = answering(js, options);
  const found = {};
  for (const { name, task, folder, inputs } of cases) {
    try {
      const [words, numbers] = await answer[task](folder, inputs);
      found[name] = { words, numbers };
    } catch (error) {
      found[name] = { error: `${error}`.split("\n")[0].slice(0, 300) };
    }
  }
  return found;
}

function labelled(found) {
  const ordered = found.map((labels) => labels.toSorted((a, b) => (a.label < b.label ? -1 : 1))).flat();
  return [ordered.map((one) => one.label), ordered.map((one) => one.score)];
}

function answering(js, options) {
  async function pair(folder, inputs) {
    const tokenizer = await js.AutoTokenizer.from_pretrained(folder);
    const model = await js.AutoModelForSequenceClassification.from_pretrained(folder, options);
    const found = [];
    for (const { text, text_pair } of inputs) {
      const { logits } = await model(tokenizer(text, { text_pair }));
      const scores = js.softmax(logits.tolist()[0]);
      found.push(scores.map((score, label) => ({ label: model.config.id2label[label], score })));
    }
    return labelled(found);
  }

  return {
    async token_classification(folder, inputs) {
      const run = await js.pipeline("token-classification", folder, options);
      const found = (await Promise.all(inputs.map((text) => run(text, { ignore_labels: [] })))).flat();
      return [found.map((token) => token.entity), found.map((token) => token.score)];
    },
    async masked_lm(folder, inputs) {
      const run = await js.pipeline("fill-mask", folder, options);
      const found = (await Promise.all(inputs.map((text) => run(text, { top_k: 3 })))).flat();
      return [found.map((choice) => choice.token_str), found.map((choice) => choice.score)];
    },
    async text_classification(folder, inputs) {
      if ("text_pair" in inputs[0]) return pair(folder, inputs);
      const run = await js.pipeline("text-classification", folder, options);
      return labelled(await Promise.all(inputs.map(({ text }) => run(text, { top_k: null }))));
    },
    async question_answering(folder, inputs) {
      const run = await js.pipeline("question-answering", folder, options);
      const found = await Promise.all(inputs.map(({ question, context }) => run(question, context)));
      return [found.map((one) => one.answer), []];
    },
    async retrieval(folder, inputs) {
      const run = await js.pipeline("feature-extraction", folder, options);
      return [[], (await run(inputs, { pooling: "mean", normalize: true })).tolist().flat()];
    },
    async text_generation(folder, inputs) {
      const run = await js.pipeline("text-generation", folder, options);
      const found = [];
      for (const { prompt, options } of inputs) found.push(await run(prompt, { ...options, do_sample: false }));
      const said = found.map((one) => one[0].generated_text);
      return [said.map((text) => (typeof text === "string" ? text : text.at(-1).content)), []];
    },
  };
}
