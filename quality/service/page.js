"use strict";
// A page is whole without this script. It adds two things: a page that names a stream of events draws its live parts again when one
// comes, and every few seconds, since what goes on within a stage makes no event; and a form that starts or stops something sends the access token along, which is kept until the tab is closed.

const parsed = text => new DOMParser().parseFromString(text, "text/html");

const fillTokens = () => {
  for (const field of document.querySelectorAll("input[data-token]")) field.value ||= sessionStorage.getItem("token") || "";
};

const source = document.querySelector("[data-events]");
if (source) {
  let drawing = false, again = false, ended = false;
  const redraw = async () => {
    again = drawing;
    if (drawing) return;
    drawing = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.ok) draw(parsed(await answer.text()));
    } catch {
      // the service is away, or went in mid-answer: it is asked again
    } finally {
      setTimeout(() => { drawing = false; if (again) redraw(); }, 1000);
    }
  };
  const draw = fresh => {
    for (const part of document.querySelectorAll("[data-live]")) {
      const now = fresh.getElementById(part.id);
      if (part.innerHTML !== now.innerHTML) part.replaceChildren(...now.childNodes);
    }
    document.title = fresh.title;
    ended = !fresh.querySelector("[data-events]");
    fillTokens();
  };
  const events = new EventSource(source.dataset.events);
  for (const name of ["state", "progress"]) events.addEventListener(name, redraw);
  events.addEventListener("end", () => { events.close(); redraw(); });
  const timer = setInterval(() => { if (ended) clearInterval(timer); else redraw(); }, 5000);
}

document.addEventListener("submit", async event => {
  const form = event.target, token = form.querySelector("input[data-token]");
  if (!token) return;
  event.preventDefault();
  const said = form.querySelector(".refused"), button = form.querySelector("button");
  said.textContent = "";
  button.disabled = true;
  const headers = { Accept: "application/json", Authorization: `Bearer ${token.value}` };
  const body = new URLSearchParams(new FormData(form));
  const answer = await fetch(form.action, { method: "POST", headers, body }).catch(() => null);
  button.disabled = false;
  if (answer?.ok) sessionStorage.setItem("token", token.value);
  if (answer?.status === 401) sessionStorage.removeItem("token");
  if (!answer) said.textContent = "The service does not answer.";
  else if (answer.redirected) location.assign(answer.url);
  else if (answer.headers.get("Content-Type").startsWith("text/html")) {
    document.getElementById("main").replaceChildren(...parsed(await answer.text()).getElementById("main").childNodes);
    fillTokens();
    scrollTo(0, 0);
  } else said.textContent = (await answer.json()).detail;
});

fillTokens();
