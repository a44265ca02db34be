// SPDX-License-Identifier: GPL-2.0-or-later
// Opens each test of the page, unfolds its attachments and reports what the browser saw. The test sets IDS, NAMES and
// CODE before this: Allure's IDs, their full names, and how many attachments show as text.
(async () => {
  const seen = {violations: [], errors: [], titles: [], text: {}, statuses: {}, requests: []};
  document.addEventListener("securitypolicyviolation",
    e => seen.violations.push(`${e.violatedDirective} ${e.blockedURI}`));
  window.addEventListener("error", e => seen.errors.push(String(e.message)));
  const until = async (holds) => {
    for (let i = 0; i < 200 && !holds(); i++) await new Promise(r => setTimeout(r, 50));
  };
  const all = (id) => [...document.querySelectorAll(`[data-testid="${id}"]`)];
  await until(() => all("tree-leaf-status-failed").length);
  for (const id of IDS) {
    location.hash = "#" + id;
    await until(() => all("test-result-fullname").some(e => e.innerText.trim() === NAMES[id]));
    for (const header of all("test-result-attachment-header")) header.querySelector("button").click();
    await until(() => all("code-attachment-content").length >= CODE[id]);
    seen.titles.push(document.title);
    seen.text[id] = document.body.innerText;
    const statuses = ["passed", "failed", "broken", "skipped"];
    seen.statuses[id] = statuses.filter(s => all("test-result-status-" + s).length);
  }
  seen.requests = performance.getEntriesByType("resource").map(e => e.name.slice(0, 99))
    .filter(name => !name.startsWith("data:") && !name.startsWith("blob:"));
  seen.alien = document.querySelectorAll("#app img[onerror], #app script, img[src^=http]").length;
  const pre = document.createElement("pre");
  pre.id = "verdict";
  pre.textContent = JSON.stringify(seen);
  document.documentElement.appendChild(pre);
})();
