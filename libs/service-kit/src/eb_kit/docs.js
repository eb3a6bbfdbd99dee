
"use strict";
const main = document.getElementById("operations");
const filter = document.getElementById("filter");
const element = (name, text, ...children) => {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
};
const follow = (api, schema, seen) => {
  if (Array.isArray(schema)) return schema.map((item) => follow(api, item, seen));
  if (schema === null || typeof schema !== "object") return schema;
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    if (seen.includes(name)) return name;
    return follow(api, api.components.schemas[name], [...seen, name]);
  }
  return Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, follow(api, value, seen)]));
};
const shape = (api, content) =>
  Object.entries(content || {}).flatMap(([type, media]) => [
    element("p", type),
    element("pre", JSON.stringify(follow(api, media.schema, []), null, 1)),
  ]);
const parameters = (operation) => {
  const rows = operation.parameters.map((parameter) =>
    element("tr", "",
      element("td", "", element("code", parameter.name)),
      element("td", parameter.in + (parameter.required ? ", required" : "")),
      element("td", parameter.description || "")));
  return rows.length ? [element("h3", "Parameters"), element("table", "", ...rows)] : [];
};
const answer = (api, [status, response]) => {
  const made = element("details", "", element("summary", `${status} ${response.description}`));
  if (!response["x-codes"]) made.append(...shape(api, response.content));
  return made;
};
const operation = (api, method, path, item) => {
  const summary = element("summary", "", element("b", method.toUpperCase()), element("code", path), ` ${item.summary}`);
  const made = element("details", "", summary);
  made.dataset.text = `${method} ${path} ${JSON.stringify(item)}`.toLowerCase();
  made.addEventListener("toggle", () => {
    if (made.dataset.filled) return;
    made.dataset.filled = "yes";
    made.append(element("p", item.description), element("p", `Allowed: ${item["x-allowed"].join(", ")}`), ...parameters(item));
    if (item.requestBody) made.append(element("h3", "Body"), element("p", item.requestBody.description), ...shape(api, item.requestBody.content));
    made.append(element("h3", "Answers"), ...Object.entries(item.responses).map((entry) => answer(api, entry)));
  });
  return made;
};
const codes = (api) => {
  const found = new Map();
  for (const methods of Object.values(api.paths))
    for (const item of Object.values(methods))
      for (const [status, response] of Object.entries(item.responses))
        for (const code of response["x-codes"] || []) found.set(code, status);
  return [...found].sort().map(([code, status]) => {
    const row = element("tr", "", element("td", "", element("code", code)), element("td", status));
    row.id = `problem-${code}`;
    return row;
  });
};
const show = (api) => {
  const groups = new Map();
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, item] of Object.entries(methods)) {
      const tag = item.tags[0];
      if (!groups.has(tag)) groups.set(tag, element("section", "", element("h2", tag)));
      groups.get(tag).append(operation(api, method, path, item));
    }
  main.replaceChildren(...groups.values(), element("h2", "Problem codes"), element("table", "", ...codes(api)));
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
};
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/);
  for (const made of main.querySelectorAll("section > details"))
    made.hidden = !words.every((word) => made.dataset.text.includes(word));
});
fetch("/openapi.json").then((response) => response.json()).then(show);
