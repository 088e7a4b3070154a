"use strict";
// Takes the key out of the address bar, and loads the page again only when something new has come: what is being
// read or selected stays as it is until then.
history.replaceState(null, "", "/");
const shown = document.documentElement.dataset.revision;
const lost = document.getElementById("lost");
setInterval(async () => {
  try {
    const answer = await fetch("/revision", { cache: "no-store" });
    lost.hidden = answer.ok;
    if (answer.ok && (await answer.text()) !== shown) location.reload();
  } catch {
    lost.hidden = false;
  }
}, 2000);
