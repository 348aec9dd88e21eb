// The form of a new run: what was changed, by key, and what the judge says of it.
import { look } from "./data.js";
import { fillMatrix } from "./matrix.js";

const QUIET = 300; // milliseconds without a change until it is asked what would fit instead

export function fillForm(form, ask, say, confirmAction) {
  const $ = (selector) => document.querySelector(selector);
  let values = JSON.parse(form.dataset.form), asking = false, again = false, changes = 0, quiet, queue = "", forms = { command: "" };

  const inputs = () => [...form.querySelectorAll("[data-key]")];
  const show = () => {
    for (const input of inputs()) {
      const text = values[input.dataset.key] ?? "";
      if (input.tagName === "SELECT" && text && ![...input.options].some((option) => option.value === text)) input.add(new Option(text, text));
      input.value = text;
    }
    mark();
  };
  const mark = () => {
    for (const input of inputs()) input.closest(".field").classList.toggle("is-changed", input.dataset.key in values);
    for (const group of form.querySelectorAll(".group")) {
      group.querySelector(".changed").hidden = !Object.keys(values).some((key) => key.startsWith(`${group.dataset.group}.`));
    }
  };

  // The fields of a group follow its choice; what only the former choice had is left out of the form, and the page says so.
  async function renew(group, choice) {
    const section = form.querySelector(`.group[data-group="${group}"]`);
    if (section.dataset.shown === choice) return;
    const answer = await ask(`new/fields/${group}/${encodeURIComponent(choice)}`);
    if (!answer.ok) return;
    section.dataset.shown = choice;
    await htmx.swap(section.querySelector(".fields"), await answer.text(), { swapStyle: "innerHTML" });
    show();
  }

  function leaveOutStrange() {
    const there = new Set(inputs().map((input) => input.dataset.key));
    const strange = Object.keys(values).filter((key) => !there.has(key) && !key.startsWith("model.architecture."));
    for (const key of strange) delete values[key];
    if (strange.length) $("#told").textContent = `${say("left_out_keys")} ${strange.join(", ")}`;
    $("#told").hidden = !strange.length;
  }

  async function judge() {
    changes += 1;
    clearTimeout(quiet);
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    $("#start").disabled = true;
    $("#permitted").textContent = say("judging");
    do {
      again = false;
      try {
        const answer = await ask("new/plan", { form: values });
        const found = answer.ok ? await answer.json() : { error: await answer.text(), command: "" };
        if (!again && form.isConnected) await tell(found);
      } catch {
        $("#permitted").textContent = say("lost");
      }
    } while (again && form.isConnected);
    asking = false;
  }

  async function tell(found) {
    forms = { command: found.command, processes: found.processes ?? "", script: found.script || say("no_script") };
    showCommand();
    queue = found.queue ?? "";
    $("#plan").textContent = found.text ?? "";
    $("#form-error").textContent = found.error;
    $("#proposals").replaceChildren();
    for (const input of inputs()) input.setAttribute("aria-invalid", String(Boolean(found.error) && input.dataset.key.includes(".") && found.error.includes(input.dataset.key)));
    $("#permitted").className = found.error ? "dead" : found.permitted ? "finished" : "failed";
    $("#permitted").textContent = found.error ? say("not_a_run") : found.permitted ? say("permitted") : say("refused");
    $("#start").disabled = !found.permitted;
    for (const id of ["#save", "#enqueue", "#look"]) $(id).disabled = Boolean(found.error);
    if (found.error) return;
    showMatrix();
    for (const [group, choice] of Object.entries(found.choices)) {
      const select = form.querySelector(`#choice-${group}`);
      if (!select) continue;
      select.options[0].textContent = `${choice} (${say("default")})`;
      await renew(group, choice);
    }
    for (const input of inputs()) {
      const now = found.values[input.dataset.key];
      if (now === undefined) continue;
      if (input.tagName === "INPUT") input.placeholder = now;
      else if (input.options[0]?.dataset.default) input.options[0].textContent = `${now} (${input.options[0].dataset.default})`;
    }
    if (!found.permitted) quiet = setTimeout(propose, QUIET, changes);
  }

  const showCommand = () => { $("#command").textContent = forms[$("[name=command-form]:checked").value]; };

  // The widest question of all, so it is asked only while somebody looks at its answer.
  function showMatrix() {
    if ($("#matrix").open) fillMatrix($("#matrix > div"), { ...values }, ask, say, take);
  }

  // Of the form as it is after so many changes; a later one makes the answer stale.
  async function propose(at) {
    const answer = await ask("new/proposals", { form: values }).catch(() => null); // the board is away: the next change asks again
    if (!answer?.ok || at !== changes) return;
    const found = await answer.json();
    if (at !== changes || !form.isConnected) return;
    const text = document.createElement("pre");
    text.textContent = found.error || found.text;
    $("#proposals").replaceChildren(text);
    for (const { words, form: whole } of found.proposals ?? []) {
      const button = document.createElement("button"), line = document.createElement("p");
      button.type = "button";
      button.className = "quiet";
      button.textContent = `${say("apply")}: ${words}`;
      button.addEventListener("click", () => take(whole));
      line.append(button);
      $("#proposals").append(line);
    }
  }

  async function take(whole) {
    values = { ...whole };
    for (const select of form.querySelectorAll("[data-choice]")) if (values[select.dataset.choice]) await renew(select.dataset.choice, values[select.dataset.choice]);
    show();
    judge();
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", async ({ target }) => {
    if (target.id === "find") find(target.value.toLowerCase());
    if (!target.dataset.key) return;
    if (target.value === "") delete values[target.dataset.key];
    else values[target.dataset.key] = target.value;
    if (target.dataset.choice && target.value) {
      await renew(target.dataset.choice, target.value);
      leaveOutStrange();
    }
    mark();
    judge();
  });

  function find(words) {
    for (const group of form.querySelectorAll(".group")) {
      const fields = [...group.querySelectorAll("[data-find]")];
      for (const field of fields) field.hidden = !field.dataset.find.toLowerCase().includes(words);
      group.hidden = Boolean(words) && fields.every((field) => field.hidden);
      group.querySelector("details").open = Boolean(words) && !group.hidden;
    }
  }

  $("#demo").onclick = () => take({ recipe: "demo" });
  $("#empty").onclick = () => take({});
  $("#load").onchange = async ({ target }) => {
    const [file] = target.files;
    if (!file) return;
    const answer = await ask("new/load", { text: await file.text() });
    const found = answer.ok ? await answer.json() : { error: await answer.text() };
    target.value = "";
    $("#told").textContent = found.told ?? "";
    $("#told").hidden = !found.told;
    $("#form-error").textContent = found.error;
    if (!found.error) take(found.form);
  };
  $("#save").onclick = async () => {
    const answer = await ask("new/save", { form: values });
    const found = answer.ok ? await answer.json() : { error: await answer.text() };
    $("#form-error").textContent = found.error;
    if (found.error) return;
    const link = document.createElement("a");
    link.href = `data:application/yaml;charset=utf-8,${encodeURIComponent(found.text)}`;
    link.download = "run.yaml";
    link.click();
  };
  $("#copy").onclick = () => navigator.clipboard.writeText($("#command").textContent);
  for (const choice of document.querySelectorAll("[name=command-form]")) choice.addEventListener("change", showCommand);
  $("#matrix").addEventListener("toggle", showMatrix);
  $("#look").onclick = () => look($("#report"), { ...values }, ask, say);
  $("#enqueue").onclick = () => confirmAction({ act: "new/queue", name: "enqueue", command: queue, values: JSON.stringify({ form: values }) });
  $("#start").onclick = () => confirmAction({ act: "new/start", name: "start", command: forms.command, values: JSON.stringify({ form: values }) });
  show();
  judge();
}
