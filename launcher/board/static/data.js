// What `regimen data validate` says of the sets of a form; on the page of data, of the set whose button is pressed.
export async function look(place, form, ask, say) {
  place.textContent = say("looking");
  try {
    const answer = await ask("data/look", { form });
    if (answer.ok) await htmx.swap(place, await answer.text(), { swapStyle: "innerHTML" });
    else place.textContent = await answer.text();
  } catch {
    place.textContent = say("lost");
  }
}

export function watchSets(page, ask, say) {
  const value = (name) => page.querySelector(`#data-${name}`).value.trim(), folder = value("folder");
  page.querySelector("#look-at").addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = `#/data?folder=${encodeURIComponent(value("folder"))}`;
  });
  for (const button of page.querySelectorAll("[data-look]")) {
    button.addEventListener("click", async () => {
      const form = { model: value("model"), stage: value("stage"), data: "files", "data.folder": folder, "data.sets": JSON.stringify([button.dataset.look]) };
      if (value("cutoff")) form["data.cutoff"] = value("cutoff");
      for (const each of page.querySelectorAll("[data-look]")) each.disabled = true;
      await look(page.querySelector("#report"), form, ask, say);
      for (const each of page.querySelectorAll("[data-look]")) each.disabled = false;
      page.querySelector("#report").scrollIntoView();
    });
  }
}
