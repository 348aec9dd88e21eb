// Every regime under every sharding, judged as the form is; a cell takes its choice into the form.
export async function fillMatrix(place, form, ask, say, take) {
  place.textContent = say("judging");
  let found;
  try {
    const answer = await ask("new/matrix", { form });
    found = answer.ok ? await answer.json() : { error: await answer.text() };
  } catch {
    found = { error: say("lost") };
  }
  place.replaceChildren();
  if (found.error) {
    place.textContent = found.error;
    return;
  }
  const table = document.createElement("table"), head = table.createTHead().insertRow(), body = table.createTBody();
  const shardings = Object.keys(found.columns), [first] = shardings;
  for (const text of [say("regime"), ...shardings]) head.append(heading(text, "col"));
  found.columns[first].forEach(({ name }, at) => {
    const row = body.insertRow();
    row.append(heading(name, "row"));
    for (const sharding of shardings) {
      const cell = found.columns[sharding][at];
      row.insertCell().append(cell.need ? button(cell, sharding) : text(cell));
    }
  });
  place.append(table);

  function button(cell, sharding) {
    const made = document.createElement("button"), words = cell.permitted ? say("permitted") : `${say("refused")}: ${cell.short}`;
    made.type = "button";
    made.className = `quiet ${cell.permitted ? "finished" : "failed"}`;
    made.textContent = `${cell.permitted ? "✓" : "✗"} ${cell.need}`;
    made.setAttribute("aria-pressed", String(cell.chosen));
    made.title = cell.why || words;
    made.setAttribute("aria-label", `${cell.name}, ${sharding}: ${cell.need}, ${words}. ${say("apply")}`);
    made.addEventListener("click", async () => {
      const answer = await ask("new/cell", { form, regime: cell.name, sharding });
      const taken = answer.ok ? await answer.json() : { error: await answer.text() };
      if (taken.error) place.textContent = taken.error;
      else take(taken.form);
    });
    return made;
  }
}

function heading(text, scope) {
  const cell = document.createElement("th");
  cell.scope = scope;
  cell.textContent = text;
  return cell;
}

function text(cell) {
  const made = document.createElement("span");
  made.textContent = cell.short;
  made.title = cell.why;
  return made;
}
