"use strict";
// Everything that comes from outside is put into the page as text (textContent), never as HTML.
const $ = (id) => document.getElementById(id);
const SAMPLES = JSON.parse($("samples").textContent);
const SHOWN_CHARS = 1000000; // of a running task's output; older ones give way
const REFRESH_MS = 2000;
let chosen = null; // the task that is shown
let source = null; // its events, while it runs
let before = ""; // the history from there on

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null)); // null: nothing
  return element;
}

async function ask(method, path, body) {
  const options = { method, cache: "no-store" };
  if (body) Object.assign(options, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The dashboard does not answer any more: what you see may be old. If it was started again, open the link that it printed.");
  }
  const document = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(document.detail || `The dashboard answered ${answer.status}.`);
  return document;
}

function tell(error) {
  $("problem").textContent = error ? error.message : "";
  $("problem").hidden = !error;
}

const trying = (work) => async (event) => {
  if (event && event.preventDefault) event.preventDefault();
  try {
    await work(event);
    tell(null);
  } catch (error) {
    tell(error);
  }
};

const clock = (iso) => make("time", { datetime: iso }, iso.slice(0, 19).replace("T", " "));
const pill = (status) => make("span", { class: `status ${status}` }, status);

// --- agents and history ---------------------------------------------------------------------------------------------

let drawn = "";
let asked = 0;

const refresh = trying(async () => {
  const number = ++asked;
  const filter = new FormData($("filter-form"));
  const query = new URLSearchParams({ q: filter.get("q"), status: filter.get("status"), before });
  const state = await ask("GET", `/desk?${query}`);
  if (number !== asked) return; // an answer to an older question
  const now = JSON.stringify([state, chosen]);
  if (now === drawn) return; // what is being read or selected stays as it is
  drawn = now;
  drawAgents(state.agents);
  drawHistory(state);
});

function drawAgents(agents) {
  $("agents").replaceChildren(...agents.map((agent) => make("li", {},
    make("span", { class: `light ${agent.light === "ok" ? "ok" : ""}`, title: agent.url }, `${agent.name}: ${agent.light}`), " ",
    make("button", { "aria-label": `Forget ${agent.name}`, title: "Forget", onclick: trying(async () => {
      await ask("DELETE", `/desk/agents/${agent.id}`);
      await refresh();
    }) }, "×"))));
  const select = $("send-form").agent;
  const wanted = select.value;
  select.replaceChildren(...agents.map((agent) => make("option", { value: agent.id }, agent.name)));
  if (agents.some((agent) => String(agent.id) === wanted)) select.value = wanted;
  if (!agents.length) $("register").open = true;
}

function drawHistory(state) {
  const focused = $("history").contains(document.activeElement) ? document.activeElement.hash : null;
  $("history").replaceChildren(...state.tasks.map((task) => make("li", {},
    make("a", { href: `#task-${task.id}`, "aria-current": task.id === chosen ? "true" : null },
      pill(task.status), make("span", { class: "what" }, `${task.task_id}${task.agent ? ` · ${task.agent}` : ""}`),
      clock(task.created_at)))));
  if (focused) [...$("history").querySelectorAll("a")].find((link) => link.hash === focused)?.focus();
  $("older").hidden = !state.more;
  $("older").onclick = () => { before = state.tasks.at(-1).id; refresh(); };
  const shown = state.tasks.find((task) => task.id === chosen);
  if (shown && shown.status !== $("task").dataset.status) show(chosen);
}

$("filter-form").addEventListener("input", () => { before = ""; refresh(); });
$("filter-form").addEventListener("submit", (event) => event.preventDefault());

$("register-form").addEventListener("submit", trying(async (event) => {
  const form = event.target;
  const answer = await ask("POST", "/desk/agents", Object.fromEntries(new FormData(form)));
  const isNew = !form.report_token.value;
  $("new-token").textContent = isNew
    ? `Start this agent with AGP_DASHBOARD_URL=${location.origin} and AGP_DASHBOARD_TOKEN=${answer.report_token} (shown only now).`
    : `Registered. The agent sends its results to AGP_DASHBOARD_URL=${location.origin}.`;
  $("new-token").hidden = false;
  form.reset();
  $("register").open = false;
  await refresh();
}));

// --- sending ----------------------------------------------------------------------------------------------------------

const sending = $("send-form");
sending.sample.append(...Object.keys(SAMPLES).map((name) => make("option", {}, name)));
sending.sample.addEventListener("change", useSample);

function useSample() {
  sending.elements.name.value = sending.sample.value;
  sending.content.value = SAMPLES[sending.sample.value];
}

useSample();
sending.addEventListener("submit", trying(async () => {
  const { id } = await ask("POST", "/desk/tasks", {
    agent_id: Number(sending.agent.value),
    task_id: sending.task_id.value,
    name: sending.elements.name.value,
    content: sending.content.value.replaceAll("\r\n", "\n"),
  });
  sending.task_id.value = "";
  before = "";
  location.hash = `#task-${id}`;
}));
sending.content.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) sending.requestSubmit();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  sending.content.addEventListener(kind, async (event) => {
    event.preventDefault();
    sending.content.classList.toggle("drop", kind === "dragover");
    const file = kind === "drop" && event.dataTransfer.files[0];
    if (!file) return;
    sending.elements.name.value = file.name;
    sending.content.value = await file.text();
  });
}

// --- one task ---------------------------------------------------------------------------------------------------------

async function show(id) {
  chosen = id;
  const task = await ask("GET", `/desk/tasks/${id}`);
  if (chosen !== id) return;
  const section = $("task");
  section.dataset.status = task.status;
  const screen = make("pre", { id: "output", tabindex: "0", "aria-label": "Output" });
  const state = make("p", { class: "quiet", role: "status" });
  const told = make("div");
  section.replaceChildren(...[
    make("div", { class: "head" }, pill(task.status), make("h2", {}, task.task_id),
      task.status === "sent" ? make("button", { id: "cancel", onclick: trying(async () => {
        const { said } = await ask("POST", `/desk/tasks/${id}/cancel`);
        if (said) throw new Error(said);
      }) }, "Cancel") : null),
    make("p", { class: "quiet" }, [task.agent, task.name].filter(Boolean).join(" · "), " ", clock(task.created_at),
      task.times_received > 1 ? ` · received ${task.times_received} times, kept once` : ""),
    task.error || task.refused ? make("p", { class: "error" }, task.error || task.refused) : null,
    told, screen, state,
    task.output_is_cut ? make("p", { class: "quiet" }, make("a", { href: `/desk/tasks/${id}/output` }, "whole output")) : null,
    task.content ? make("details", {}, make("summary", {}, "Playbook"), make("pre", { tabindex: "0" }, visible(task.content))) : null,
    make("h2", {}, "Calls"), ...task.calls.map(drawCall),
  ].filter((part) => part !== null));
  if (source) source.close();
  source = null;
  const terminal = new Terminal(screen);
  if (task.output !== undefined) terminal.write(task.output || "");
  else if (task.status === "sent") follow(id, terminal, state);
  if (task.output === "") state.textContent = "no output";
  if (task.agent_id && task.status !== "refused") drawDetails(await ask("GET", `/desk/tasks/${id}/details`), told);
}

function follow(id, terminal, state) {
  source = new EventSource(`/desk/tasks/${id}/live`);
  state.textContent = "live";
  source.addEventListener("output", (event) => terminal.write(JSON.parse(event.data).text));
  source.addEventListener("gap", (event) => {
    terminal.write(`\n[agp-agent: ${JSON.parse(event.data).omitted_bytes ?? "an unknown number of"} bytes omitted]\n`);
  });
  source.addEventListener("end", (event) => {
    const end = JSON.parse(event.data);
    source.close();
    state.textContent = `ended: ${end.outcome}${end.error ? `, ${end.error}` : ""}; its result is on the way`;
  });
  source.addEventListener("error", () => { state.textContent = "the agent does not answer; asking again …"; });
  source.addEventListener("open", () => { state.textContent = "live"; });
}

function drawDetails(details, place) {
  const counts = ["ok", "changed", "unreachable", "failed", "skipped", "rescued", "ignored"];
  if (details.recap && details.recap.length) {
    place.append(make("div", { class: "scroll" }, make("table", { id: "recap" },
      make("tr", {}, make("th", {}, "host"), ...counts.map((name) => make("th", {}, name))),
      ...details.recap.map((one) => make("tr", {}, make("td", {}, one.host), ...counts.map((name) => make("td", {}, String(one[name]))))))));
  }
  for (const one of details.failures || []) {
    place.append(make("p", { class: "error" }, `${one.task} (${one.kind}, ${one.host}): ${one.message}`));
  }
}

function drawCall(call) {
  const lines = (headers) => Object.entries(headers).map(([name, value]) => `${name}: ${value}`).join("\n");
  const copy = make("button", { onclick: trying(async () => {
    await navigator.clipboard.writeText(curl(call));
    copy.textContent = "Copied";
  }) }, "Copy as curl");
  return make("details", { class: "call" },
    make("summary", {}, `${call.is_ours ? "→" : "←"} ${call.method} ${call.url} · ${call.status ?? "no answer"}`),
    make("pre", { tabindex: "0" }, visible(`${lines(call.request_headers)}\n\n${call.request_body}`)),
    make("pre", { tabindex: "0" }, visible(call.response_body)), copy);
}

function curl(call) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const headers = Object.entries(call.request_headers).map(([name, value]) =>
    value === "Bearer $TOKEN" ? `-H "${name}: Bearer $TOKEN"` : `-H ${quoted(`${name}: ${value}`)}`);
  return ["curl", "-X", call.method, ...headers, ...(call.request_body ? ["--data-raw", quoted(call.request_body)] : []), quoted(call.url)].join(" ");
}

// --- output, with its colours -------------------------------------------------------------------------------------------

// What would steer a terminal, or turn the direction of text, is spelled out.
const STEERS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
const visible = (text) => text.replaceAll("\r\n", "\n").replace(STEERS, (char) =>
  char.charCodeAt(0) < 256 ? `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}` : `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);

class Terminal {
  // Colours and weights are shown, other sequences left out; a lone carriage return begins its line again.
  constructor(screen) {
    this.screen = screen;
    this.style = {};
    this.rest = "";
    this.waiting = [];
    this.waitingChars = 0;
    this.shownChars = 0;
    this.droppedChars = 0;
    this.line = []; // the nodes of the last line
    this.note = null;
  }

  write(text) {
    this.waiting.push(text);
    this.waitingChars += text.length;
    while (this.waiting.length > 1 && this.waitingChars - this.waiting[0].length >= SHOWN_CHARS) {
      const dropped = this.waiting.shift();
      this.waitingChars -= dropped.length;
      this.droppedChars += dropped.length;
    }
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = null;
    const isAtEnd = this.screen.scrollTop + this.screen.clientHeight >= this.screen.scrollHeight - 4;
    let text = this.rest + this.waiting.join("");
    this.waiting = [];
    this.waitingChars = 0;
    const cut = text.slice(-64).match(/(\u001b(\[[0-9;:?]*|\][^\u0007\u001b]*)?|\r)$/); // a sequence that is not whole yet
    this.rest = cut ? cut[0] : "";
    if (cut) text = text.slice(0, -cut[0].length);
    const block = document.createDocumentFragment();
    for (const part of text.replaceAll("\r\n", "\n").split(/(\u001b\[[0-9;:?]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|\n|\r)/)) {
      if (part === "\n") { this.add(block, "\n"); this.line = []; }
      else if (part === "\r") { for (const node of this.line) node.remove(); this.line = []; }
      else if (/^\u001b\[[0-9;:]*m$/.test(part)) this.dress(part.slice(2, -1));
      else if (part && !/^\u001b[[\]]/.test(part)) this.line.push(this.add(block, visible(part)));
    }
    this.screen.append(block);
    this.trim();
    if (isAtEnd) this.screen.scrollTop = this.screen.scrollHeight;
  }

  add(block, text) {
    const { color, back, ...flags } = this.style;
    const names = [color, back, ...Object.keys(flags)].filter(Boolean).join(" ");
    const node = names ? make("span", { class: names }, text) : document.createTextNode(text);
    block.append(node);
    this.shownChars += text.length;
    return node;
  }

  trim() {
    while (this.shownChars > SHOWN_CHARS) {
      const oldest = this.note ? this.note.nextSibling : this.screen.firstChild;
      this.shownChars -= oldest.textContent.length;
      this.droppedChars += oldest.textContent.length;
      oldest.remove();
    }
    if (!this.droppedChars) return;
    if (!this.note) this.screen.prepend(this.note = make("span", { class: "quiet" }));
    this.note.textContent = `[dashboard: ${this.droppedChars} characters before this are not shown]\n`;
  }

  dress(codes) {
    const numbers = codes.split(/[;:]/).map(Number);
    for (let at = 0; at < numbers.length; at += 1) {
      const code = numbers[at];
      const is = (low, high) => code >= low && code <= high;
      if (code === 0) this.style = {};
      else if (code === 1) this.style.b = true;
      else if (code === 2) this.style.d = true;
      else if (code === 3) this.style.i = true;
      else if (code === 4) this.style.u = true;
      else if (code === 22) { delete this.style.b; delete this.style.d; }
      else if (code === 23) delete this.style.i;
      else if (code === 24) delete this.style.u;
      else if (is(30, 37) || is(90, 97)) this.style.color = `f${code % 10}`;
      else if (is(40, 47) || is(100, 107)) this.style.back = `g${code % 10}`;
      else if (code === 39) delete this.style.color;
      else if (code === 49) delete this.style.back;
      else if (code === 38 || code === 48) { // of 256 colours and of all those of a screen, the nearest of eight
        const kind = code === 38 ? "color" : "back";
        const near = numbers[at + 1] === 5 ? of256(numbers[at + 2]) : nearest(numbers.slice(at + 2, at + 5));
        this.style[kind] = `${code === 38 ? "f" : "g"}${near}`;
        at += numbers[at + 1] === 5 ? 2 : 4;
      }
    }
  }
}

const nearest = ([red = 0, green = 0, blue = 0]) => (red > 127) + 2 * (green > 127) + 4 * (blue > 127);

function of256(number = 0) {
  if (number < 16) return number % 8;
  if (number > 231) return number > 243 ? 7 : 0;
  const index = number - 16;
  return nearest([Math.floor(index / 36), Math.floor(index / 6) % 6, index % 6].map((part) => part * 51));
}

// --- the beginning ------------------------------------------------------------------------------------------------------

const route = trying(async () => {
  const number = /^#task-(\d+)$/.exec(location.hash);
  if (number) {
    await show(Number(number[1]));
    await refresh();
    $("task").focus({ preventScroll: true });
  }
});

if (location.search) history.replaceState(null, "", location.pathname + location.hash); // the link is used up
addEventListener("hashchange", route);
route();
refresh();
setInterval(refresh, REFRESH_MS);
