/* What htmx does not do by itself: copying, patience with a reader, and saying that the server is gone. */
"use strict";

/* A <details> that was opened stays open when its surroundings are merged. */
Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) =>
  !(name === "open" && node.tagName === "DETAILS");

/* Someone marks text in a log, or has scrolled back in it: it must not move under their eyes. */
const isReading = (log) => {
  const selection = document.getSelection();
  const marks = !selection.isCollapsed && selection.containsNode(log, true);
  return marks || Math.abs(log.scrollTop) > 24;
};

/* A log that goes on while it is looked at: its last lines come first, with every connection. */
const KEPT_LINES = 2000;
const followLog = (log) => {
  const pre = log.querySelector("pre");
  const state = document.querySelector("[data-log-state]");
  let source = null;
  let lines = [];
  let changed = false;
  const show = () => {
    const reads = isReading(log);
    state.textContent = source === null ? "" : reads ? "Waits while you read" : "Follows";
    if (!changed || reads) {
      return;
    }
    changed = false;
    pre.textContent = lines.join("\n");
    const empty = document.getElementById("log-empty");
    if (empty !== null && lines.length > 0) {
      empty.remove();
    }
  };
  const open = () => {
    source = new EventSource(log.dataset.follow);
    source.onopen = () => {
      lines = [];
    };
    source.onmessage = (event) => {
      lines.push(...event.data.split("\n"));
      lines.splice(0, lines.length - KEPT_LINES);
      changed = true;
    };
  };
  const close = () => {
    source?.close();
    source = null;
  };
  document.addEventListener("visibilitychange", () => {
    close();
    if (!document.hidden) {
      open();
    }
  });
  open();
  setInterval(show, 250);
};
document.querySelectorAll("[data-follow]").forEach(followLog);

/* What asks by itself waits while nobody looks. */
document.addEventListener("htmx:confirm", (event) => {
  const polls = event.detail.triggeringEvent === undefined;
  if (polls && document.hidden) {
    event.preventDefault();
  }
});

/* That the server is gone is the one thing that it cannot say itself. */
const tellAbsence = (absent) => {
  document.getElementById("absent").hidden = !absent;
};
document.addEventListener("htmx:sendError", () => tellAbsence(true));
document.addEventListener("htmx:beforeOnLoad", () => tellAbsence(false));

/* A form is sent once, however often its button is pressed before the next page is there. */
const IMPATIENCE = 5000;
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented) {
    return;
  }
  if ("sent" in event.target.dataset) {
    event.preventDefault();
    return;
  }
  event.target.dataset.sent = "";
  setTimeout(() => delete event.target.dataset.sent, IMPATIENCE);
});

/* What a part or a button is refused is told where a whole page tells it, until that works again. */
const alerts = document.getElementById("alerts");
const addressOf = (detail) => detail.requestConfig.path.split("?")[0];
document.addEventListener("htmx:responseError", (event) => {
  const { detail } = event;
  const answer = new DOMParser().parseFromString(detail.xhr.responseText, "text/html");
  const said = answer.querySelector("#alerts > *, main .alert.bad");
  if (said !== null) {
    alerts.replaceChildren(said);
    alerts.dataset.about = addressOf(detail);
  }
  if (detail.requestConfig.verb !== "get") {
    alerts.scrollIntoView({ block: "nearest" });
  }
});
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.requestConfig.verb !== "get") {
    alerts.replaceChildren();
  }
});
document.addEventListener("htmx:afterRequest", (event) => {
  const { detail } = event;
  if (detail.successful && alerts.dataset.about === addressOf(detail)) {
    alerts.replaceChildren();
    delete alerts.dataset.about;
  }
});

/* Times come in UTC; here they are told in the reader's own time zone. */
const LOCAL_FORMS = { title: [0, 16], minutes: [0, 16], seconds: [0, 19], short: [5, 19] };
const tellLocalTimes = () => {
  for (const time of document.querySelectorAll("time[data-local]")) {
    const at = new Date(time.dateTime);
    const shifted = new Date(at.getTime() - at.getTimezoneOffset() * 60000);
    const form = time.dataset.local;
    const text = shifted.toISOString().replace("T", " ").slice(...LOCAL_FORMS[form]);
    if (form === "title") {
      time.title = text;
    } else {
      time.textContent = text;
    }
  }
};
tellLocalTimes();
document.addEventListener("htmx:afterSwap", tellLocalTimes);

/* A slider beside a number: what it is moved to is typed, and what is typed moves it. */
const follow = (slider) => {
  const typed = document.getElementById(slider.dataset.slides).value.trim();
  const stops = slider.dataset.stops.split(" ");
  const reached = stops.findLastIndex((stop) => stop !== "" && Number(stop) <= Number(typed));
  slider.value = typed === "" ? 0 : Math.max(0, reached);
};
for (const slider of document.querySelectorAll("[data-slides]")) {
  slider.hidden = false;
  follow(slider);
}
document.addEventListener("input", (event) => {
  const slides = event.target.dataset.slides;
  if (slides !== undefined) {
    const stops = event.target.dataset.stops.split(" ");
    document.getElementById(slides).value = stops[event.target.value];
    return;
  }
  const slider = document.querySelector(`[data-slides="${CSS.escape(event.target.id)}"]`);
  if (slider !== null) {
    follow(slider);
  }
});

/* Buttons that copy exist only where copying works (a secure origin, loopback included). */
if (navigator.clipboard) {
  document.documentElement.classList.add("can-copy");
}
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (button === null) {
    return;
  }
  await navigator.clipboard.writeText(button.dataset.copy);
  const told = button.querySelector("[aria-live]");
  told.textContent = "Copied";
  setTimeout(() => {
    told.textContent = "Copy";
  }, 1500);
});
