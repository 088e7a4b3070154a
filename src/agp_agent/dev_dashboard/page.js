// Everything that comes from outside is put into the page as text (textContent), never as HTML.
const $ = (id) => document.getElementById(id);
const SAMPLES = JSON.parse($("samples").textContent);
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

let teller = null; // what told the problem that is shown: another one's success does not take it away

function tell(error, who) {
  if (!error && who !== teller) return;
  teller = error ? who : null;
  $("problem").textContent = error ? error.message : "";
  $("problem").hidden = !error;
}

const trying = (work, who = "a person") => async (event) => {
  if (event && event.preventDefault) event.preventDefault();
  try {
    await work(event);
    tell(null, who);
  } catch (error) {
    tell(error, who);
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
  const query = new URLSearchParams({ q: filter.get("q"), status: filter.get("status"), before, chosen: chosen ?? "" });
  const state = await ask("GET", `/desk?${query}`);
  if (number !== asked) return; // an answer to an older question
  const now = JSON.stringify([state, chosen]);
  if (now === drawn) return; // what is being read or selected stays as it is
  drawn = now;
  drawAgents(state.agents);
  drawCalls("refusals", "turned-away", state.turned_away);
  drawHistory(state);
}, "the clock");

function drawAgents(agents) {
  $("agents").replaceChildren(...agents.map((agent) => make("li", {},
    make("span", { class: `light ${agent.light === "ok" ? "ok" : ""}`, title: agent.url }, `${agent.name}: ${agent.light}`), " ",
    make("button", { "aria-label": `Forget ${agent.name}`, title: "Forget", onclick: trying(async () => {
      await ask("DELETE", `/desk/agents/${agent.id}`);
      await refresh();
    }) }, "×"))));
  drawCalls("heartbeats", "beats", agents.map((agent) => agent.heartbeat));
  const select = $("send-form").agent;
  const wanted = select.value;
  select.replaceChildren(...agents.map((agent) => make("option", { value: agent.id }, agent.name)));
  if (agents.some((agent) => String(agent.id) === wanted)) select.value = wanted;
  if (!agents.length) $("register").open = true;
}

const drawnCalls = {};

function drawCalls(section, place, calls) {
  const now = JSON.stringify(calls);
  if (now === drawnCalls[place]) return; // one that is open for reading stays open
  drawnCalls[place] = now;
  $(section).hidden = !calls.length;
  $(place).replaceChildren(...calls.map(drawCall));
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
  const section = $("task");
  const isNews = state.chosen_status && section.dataset.id === String(chosen) && state.chosen_status !== section.dataset.status;
  if (isNews) trying(() => show(chosen), "the clock")();
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
  section.dataset.id = id;
  const mayRun = ["sent", "unanswered"].includes(task.status); // what was not answered may have arrived all the same
  const screen = make("pre", { id: "output", tabindex: "0", "aria-label": "Output" });
  const state = make("p", { class: "quiet", role: "status" });
  const told = make("div");
  section.replaceChildren(...[
    make("div", { class: "head" }, pill(task.status), make("h2", {}, task.task_id),
      mayRun ? make("button", { id: "cancel", onclick: trying(async () => {
        const { said } = await ask("POST", `/desk/tasks/${id}/cancel`);
        if (said) throw new Error(said);
      }) }, "Cancel") : null),
    make("p", { class: "quiet" }, [task.agent, task.name].filter(Boolean).join(" · "), " ", clock(task.created_at),
      task.times_received > 1 ? ` · received ${task.times_received} times, kept once` : ""),
    ...[task.error, task.refused, task.result_id ? null : task.unanswered].map((why) => why ? make("p", { class: "error" }, why) : null),
    told, screen, state,
    task.output_is_cut ? make("p", { class: "quiet" }, make("a", { href: `/desk/tasks/${id}/output` }, "whole output")) : null,
    task.content ? make("details", {}, make("summary", {}, "Playbook"), make("pre", { tabindex: "0" }, visible(task.content))) : null,
    make("h2", {}, "Calls"), ...task.calls.map(drawCall),
  ].filter((part) => part !== null));
  if (source) source.close();
  source = null;
  const terminal = new Terminal(screen);
  if (task.output !== undefined) terminal.write(task.output || "");
  else if (mayRun) follow(id, terminal, state);
  if (task.output === "") state.textContent = "no output";
  if (task.agent_id && task.status !== "refused") {
    trying(async () => drawDetails(await ask("GET", `/desk/tasks/${id}/details`), told), "details")(); // its agent may be slow
  }
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
  source.addEventListener("refused", (event) => {
    source.close(); // asking again would change nothing
    state.textContent = `the agent shows no output: ${JSON.parse(event.data).said}`;
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
  const why = call.request_is_cut ? "Not all of its body is kept here: curl could not send it again." : null;
  const copy = make("button", { disabled: Boolean(why), title: why, onclick: trying(async () => {
    await navigator.clipboard.writeText(curl(call));
    copy.textContent = "Copied";
  }) }, "Copy as curl");
  return make("details", { class: "call" },
    make("summary", {}, `${call.is_ours ? "→" : "←"} ${call.method} ${call.url} · ${call.status ?? "no answer"}`),
    make("pre", { tabindex: "0" }, visible(`${lines(call.request_headers)}\n\n${call.request_body}`)),
    make("pre", { tabindex: "0" }, visible(`${lines(call.response_headers)}\n\n${call.response_body}`)),
    copy);
}

function curl(call) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const headers = Object.entries(call.request_headers).map(([name, value]) =>
    value === "Bearer $TOKEN" ? `-H "${name}: Bearer $TOKEN"` : `-H ${quoted(`${name}: ${value}`)}`);
  return ["curl", "-X", call.method, ...headers, ...(call.request_body ? ["--data-raw", quoted(call.request_body)] : []), quoted(call.url)].join(" ");
}

// --- the beginning ------------------------------------------------------------------------------------------------------

const route = trying(async () => {
  const number = /^#task-(\d+)$/.exec(location.hash);
  if (number) {
    await show(Number(number[1]));
    $("task").focus({ preventScroll: true });
    await refresh();
  }
});

if (location.search) history.replaceState(null, "", location.pathname + location.hash); // the link is used up
addEventListener("hashchange", route);
route();
refresh();
setInterval(refresh, REFRESH_MS);
