// The API as a page, from its own description: no library, nothing from elsewhere.
import { ask, element, get } from "./api.js";

function typeOf(schema) {
  if (!schema) return "";
  if (schema.anyOf) return schema.anyOf.map(typeOf).filter((name) => name !== "null").join(" or ");
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array") return "list of " + typeOf(schema.items || {});
  return schema.type || "";
}

function table(rows) {
  const body = element("tbody", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, cell || " ")))));
  return element("table", {}, body);
}

function fields(schema) {
  const needed = new Set(schema.required || []);
  return table(Object.entries(schema.properties || {}).map(([name, field]) => {
    const initial = field.default === undefined || field.default === null ? "" : "default " + JSON.stringify(field.default);
    return [element("code", { textContent: name + (needed.has(name) ? " *" : "") }), typeOf(field), field.description || initial];
  }));
}

function operation(path, method, told) {
  const parts = [element("h3", {}, element("span", { className: "method", textContent: method.toUpperCase() }), element("code", { textContent: path }))];
  if (told.description) parts.push(element("p", { textContent: told.description }));
  const parameters = (told.parameters || []).filter((each) => each.in !== "path");
  if (parameters.length) {
    parts.push(table(parameters.map((each) => [element("code", { textContent: each.name }), each.in + " · " + typeOf(each.schema), each.description || ""])));
  }
  for (const [kind, content] of Object.entries((told.requestBody || {}).content || {})) {
    parts.push(element("p", {}, element("small", { textContent: kind })));
    if (content.schema.properties) parts.push(fields(content.schema));
  }
  return parts;
}

const told = await ask("GET", "/openapi.json");
const groups = new Map();
for (const [path, methods] of Object.entries(told.paths)) {
  for (const [method, each] of Object.entries(methods)) {
    const group = (each.tags || [""])[0];
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push(...operation(path, method, each));
  }
}
const example = `curl -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\
  -d '{"prompt": "a red sun over the sea", "size": "512x512"}' ${location.origin}/v1/images/jobs`;
get("paths").append(...told.info.description.split("\n\n").map((text) => element("p", { textContent: text })),
  element("pre", { textContent: example }));
for (const [name, parts] of groups) get("paths").append(element("h2", { textContent: name }), ...parts);
