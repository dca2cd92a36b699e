// System prompt and sampling: from the form to a request's parameters, kept by the browser.

const STORED = "herdlm.settings";
const KEY = "herdlm.key";
const LIMIT_OF_STOPS = 16;

// Numbers of the form, with what the server takes each one for when it is not given.
const NUMBERS = {
  temperature: { name: "temperature", least: 0, most: 2, whole: false },
  top_p: { name: "top_p", least: 0, most: 1, whole: false, above: true },
  top_k: { name: "top_k", least: 0, most: 2 ** 31 - 1, whole: true },
  min_p: { name: "min_p", least: 0, most: 1, whole: false },
  max_tokens: { name: "max_completion_tokens", least: 1, most: 2 ** 31 - 1, whole: true },
  seed: { name: "seed", least: Number.MIN_SAFE_INTEGER, most: Number.MAX_SAFE_INTEGER, whole: true },
};

const TEXTS = [...Object.keys(NUMBERS), "stop", "system"];

/** The form of settings. */
export class Settings {
  constructor(form) {
    this.form = form;
    this.wrong = null; // the first field that is out of range
    this.restore();
    form.addEventListener("input", (event) => {
      this.check();
      if (event.target.name === "key") this.keepKey();
      else this.keep();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  get system() {
    return this.field("system").value.trim();
  }

  get key() {
    return this.field("key").value.trim();
  }

  get probabilities() {
    return this.field("probabilities").checked;
  }

  /** Parameters of a request: only what was set. */
  parameters() {
    const parameters = {};
    for (const [field, { name }] of Object.entries(NUMBERS)) {
      const text = this.field(field).value.trim();
      if (text) parameters[name] = Number(text);
    }
    const stop = this.stops();
    if (stop.length) parameters.stop = stop;
    return parameters;
  }

  /** Everything but the key, for an export. */
  values() {
    return { system: this.system, ...this.parameters() };
  }

  /** Mark what is out of range, in words beside its field. Whether all is well. */
  check() {
    let first = null;
    const mark = (field, problem) => {
      const input = this.field(field);
      const words = this.form.querySelector(`#${field}-problem`);
      words.textContent = problem ?? "";
      if (problem) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
      if (problem) first ??= input;
    };
    for (const [field, bounds] of Object.entries(NUMBERS)) mark(field, problemOf(this.field(field).value.trim(), bounds));
    mark("stop", this.stops().length > LIMIT_OF_STOPS ? `At most ${LIMIT_OF_STOPS} lines.` : null);
    this.wrong = first;
    return first === null;
  }

  /** Back to what the server does by itself; the key stays. */
  reset() {
    for (const field of TEXTS) this.field(field).value = "";
    this.field("probabilities").checked = false;
    this.check();
    this.keep();
  }

  field(name) {
    return this.form.elements.namedItem(name);
  }

  stops() {
    const lines = this.field("stop").value.split("\n").filter((line) => line !== "");
    return lines.map((line) => line.replace(/\\([nt\\])/g, (_, letter) => ({ n: "\n", t: "\t", "\\": "\\" })[letter]));
  }

  keep() {
    const values = Object.fromEntries(TEXTS.map((name) => [name, this.field(name).value]));
    const all = JSON.stringify({ ...values, probabilities: this.probabilities });
    attempt(() => localStorage.setItem(STORED, all));
  }

  keepKey() {
    attempt(() => sessionStorage.setItem(KEY, this.key));
  }

  restore() {
    let stored = {};
    attempt(() => {
      stored = JSON.parse(localStorage.getItem(STORED)) ?? {};
    });
    attempt(() => {
      this.field("key").value = sessionStorage.getItem(KEY) ?? "";
    });
    for (const name of TEXTS) {
      if (typeof stored[name] === "string") this.field(name).value = stored[name];
    }
    this.field("probabilities").checked = stored.probabilities === true;
    this.check();
  }
}

function problemOf(text, { least, most, whole, above }) {
  if (!text) return null;
  const value = Number(text);
  if (!Number.isFinite(value)) return "A number, please.";
  if (whole && !Number.isInteger(value)) return "A whole number, please.";
  if (value < least || (above && value === least)) return above ? `Above ${least}.` : `At least ${least}.`;
  return value > most ? `At most ${most}.` : null;
}

/** A full or forbidden store loses a setting at the next visit, and nothing now. */
function attempt(store) {
  try {
    store();
  } catch (error) {
    console.warn("not kept:", error.name);
  }
}
